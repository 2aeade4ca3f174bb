// Compiles collection.fc, item.fc and sbt.fc: writes <name>.boc (base64) and hashes.json.
// `node build.js OUT` writes into OUT instead, for comparing with what is committed.
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const { compileFunc, compilerVersion } = require("@ton-community/func-js");

const HERE = __dirname;
const CONTRACTS = {
  collection: ["collection.fc", "tvm.fc"],
  item: ["item.fc", "minted.fc", "tvm.fc"],
  sbt: ["sbt.fc", "minted.fc", "tvm.fc"],
};
const out = path.resolve(process.argv[2] ?? HERE);

const read = (name) => fs.readFileSync(path.join(HERE, name), "utf8");
const sha256 = (text) => crypto.createHash("sha256").update(text).digest("hex");

async function main() {
  const { funcVersion } = await compilerVersion();
  const hashes = { compiler: `FunC ${funcVersion}, @ton-community/func-js 0.11.0`, contracts: {} };
  for (const [name, files] of Object.entries(CONTRACTS)) {
    const result = await compileFunc({ targets: [`${name}.fc`], sources: read });
    if (result.status === "error") throw new Error(`${name}.fc: ${result.message}`);
    fs.writeFileSync(path.join(out, `${name}.boc`), result.codeBoc + "\n");
    hashes.contracts[name] = { code_hash: result.codeHashHex.toLowerCase(), sources: {} };
    for (const file of files) {
      hashes.contracts[name].sources[file] = sha256(read(file));
    }
  }
  fs.writeFileSync(path.join(out, "hashes.json"), JSON.stringify(hashes, null, 2) + "\n");
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
