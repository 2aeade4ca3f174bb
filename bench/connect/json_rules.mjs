// Answers each line of its input, a number of seconds, with the microseconds that an event takes.
//
//     node json_rules.mjs FOLDER_OF_NODE_MODULES RULES_AND_EVENTS.json
//
// One engine an event type, so that an event meets only the rules for its own.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, data] = process.argv.slice(2);
const { Engine } = createRequire(`${folder}/`)("json-rules-engine");
const { rules, events } = JSON.parse(readFileSync(data, "utf8"));

const engines = new Map();
for (const { event_type, rule } of rules) {
  if (!engines.has(event_type)) engines.set(event_type, new Engine());
  engines.get(event_type).addRule(rule);
}

async function measure(seconds) {
  const start = process.hrtime.bigint();
  const end = start + BigInt(Math.round(seconds * 1e9));
  let done = 0;
  let matched = 0;
  while (process.hrtime.bigint() < end) {
    const { event_type, ...facts } = events[done % events.length];
    matched += (await engines.get(event_type).run(facts)).events.length;
    done += 1;
  }
  const micros = Number(process.hrtime.bigint() - start) / 1e3;
  return { micros: micros / done, share: matched / done };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await measure(Number(line))));
}
