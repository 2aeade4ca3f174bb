"""Kills every process of the stack while rewards are on their way; each is still given once.

The run prints its seed; `SEED=… make test TESTS=tests/fault` repeats its choices.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path

from devstack.demo.play import Line
from devstack.demo.run import Demo, quiet_logs
from devstack.demo.script import Files, read_script
from devstack.stack import Stack

EXAMPLES = Path(__file__).parents[2] / "examples"
VICTIMS = (
    "connect", "points", "nft", "gateway",
    "postgres-connect", "postgres-points", "postgres-nft", "postgres-gateway",
    "nats", "devnet",
)  # fmt: skip
LONGEST_WAIT_SECONDS = 0.7


class DeadlyDemo(Demo):
    """The demo, with a process killed in the middle of every slice of events."""

    def choose(self, seed: int) -> None:
        """Fix the order of the victims and the moments at which they die."""
        self.chance = random.Random(seed)
        self.victims = list(VICTIMS)
        self.chance.shuffle(self.victims)
        self.killed: list[str] = []

    async def _send(self, lines: Sequence[Line]) -> None:
        size = -(-len(lines) // len(self.victims))
        for number, victim in enumerate(self.victims):
            piece = lines[number * size : (number + 1) * size]
            await asyncio.gather(super()._send(piece), self._kill(victim))

    async def _kill(self, victim: str) -> None:
        await asyncio.sleep(self.chance.uniform(0, LONGEST_WAIT_SECONDS))
        await asyncio.to_thread(self.stack.wait_healthy, victim)
        self.stack.kill(victim)
        self.killed.append(victim)


def test_every_reward_is_given_exactly_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    quiet_logs()
    script = read_script(
        Files(EXAMPLES / "rules.yaml", EXAMPLES / "badges.yaml", EXAMPLES / "events.jsonl")
    )
    with Stack.running(tmp_path / "state") as stack:
        demo = DeadlyDemo(stack, script, tmp_path)
        demo.choose(seed)
        findings = asyncio.run(demo.run())
        for victim in VICTIMS:
            stack.wait_healthy(victim)
            assert stack.restarts(victim) >= 1, f"{victim} was never restarted"
    assert sorted(demo.killed) == sorted(VICTIMS)
    assert findings.differences == []
    actions = demo.progress.actions
    assert actions.failed == 0
    assert actions.completed == script.expected["actions"]
    assert findings.mints_finalized == len(script.expected["mints"])
    assert findings.onchain_verified == findings.mints_finalized
    assert demo.played.accepted == script.expected["events"]["distinct"]
