"""`make demo`: starts a stack, plays the files, waits until all is final, audits, sums up."""

import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import structlog
from go2asia.connect.v1 import reward_actions_pb2
from go2asia.connect.v1.events_pb2_grpc import EventServiceStub
from go2asia.connect.v1.reward_actions_pb2_grpc import RewardActionServiceStub
from go2asia.connect.v1.rules_pb2_grpc import RuleServiceStub
from go2asia.gateway.v1.wallets_pb2_grpc import WalletLinkServiceStub
from go2asia.nft.v1 import nft_pb2
from go2asia.nft.v1.catalog_pb2_grpc import NftCatalogServiceStub
from go2asia.nft.v1.nft_pb2_grpc import NftServiceStub
from nats.aio.client import Client

from devstack.demo.audit import Findings, audit
from devstack.demo.catalogue import apply_badge, apply_rule
from devstack.demo.people import Person, link_wallet, make_person, read_secret
from devstack.demo.play import Line, Played, await_answers, send_by_bus, send_by_rpc
from devstack.demo.script import DemoError, Files, Script, read_script
from devstack.demo.table import Display, Progress
from devstack.process import StartError
from devstack.stack import Stack
from devstack.state import StackRunningError, running_pid
from mesh.bus import connect_bus
from mesh.client import open_channel
from mesh.clock import monotonic, utc_now
from mesh.watching import watch

PATIENCE_SECONDS = 180.0
REFRESH_SECONDS = 0.25
RETRY_FOR = timedelta(seconds=60)
SHOWN_DIFFERENCES = 20


def quiet_logs() -> None:
    """Leave the terminal to the table: what our own client side retries is not worth a line."""
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=quiet)
    # nats-py over TLS makes asyncio warn at every close, about nothing.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def prepare_state(state: Path, files: Files, fresh: bool) -> None:
    """Start anew when asked to, or when the state belongs to other input files."""
    mark = state / "input.sha256"
    if mark.exists() and mark.read_text() != files.digest():
        print("these are other files than this state has played: starting anew")
        fresh = True
    if fresh and state.exists():
        if running_pid(state):
            raise DemoError(f"a stack runs in {state}; stop it first, or give another STATE=")
        shutil.rmtree(state)
    state.mkdir(parents=True, exist_ok=True)
    mark.write_text(files.digest())


class Demo:
    """One run against a started stack."""

    def __init__(self, stack: Stack, script: Script, state: Path) -> None:
        self.stack = stack
        self.script = script
        self.played = Played(started=utc_now())
        self.progress = Progress(self.played, lines=len(script.lines))
        self.progress.expected_mints = len(script.expected["mints"])
        secret = read_secret(state / "people")
        users = sorted({user for user, _ in script.expected["mints"]})
        self.people = [make_person(user, secret) for user in users]
        self.unsettled = ""
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}
        self._buses: dict[str, Client] = {}
        self._open = AsyncExitStack()

    async def run(self) -> Findings:
        """Play everything and return what the audit found."""
        async with self._open:
            await self._prepare()
            with Display(self.progress) as display:
                # A task group, so that an observer that fails ends the demo with its error.
                async with asyncio.TaskGroup() as group:
                    observers = [group.create_task(self._watch(one)) for one in self.people]
                    observers.append(group.create_task(self._count(display)))
                    await self._play_out()
                    for observer in observers:
                        observer.cancel()
            return await audit(
                self.script.expected,
                points=self._channel("points", "operator/ops"),
                nft=self._channel("nft", "operator/ops"),
                gateway=self._channel("gateway", "operator/ops"),
            )

    async def _play_out(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS) as limit:
                await self._play()
                await self._settle()
        except TimeoutError:
            if not limit.expired():
                raise
            self.unsettled = f"not settled after {PATIENCE_SECONDS:.0f} s"

    def _channel(self, service: str, identity: str) -> grpc.aio.Channel:
        key = (service, identity)
        if key not in self._channels:
            tls = self.stack.tls(identity)
            channel = open_channel(self.stack.address(service), tls, retry_for=RETRY_FOR)
            self._open.push_async_callback(channel.close)
            self._channels[key] = channel
        return self._channels[key]

    async def _prepare(self) -> None:
        for source in {line.message.source for line in self.script.lines}:
            await asyncio.to_thread(self.stack.tls, f"domain-service/{source}")
        catalogue = NftCatalogServiceStub(self._channel("nft", "economy-manager/manager"))
        for badge in self.script.badges:
            await apply_badge(badge.message, catalogue)
        rules = RuleServiceStub(self._channel("connect", "economy-manager/manager"))
        for rule in self.script.rules:
            await apply_rule(rule.message, rules)
        print(f"{len(self.script.badges)} badge types and {len(self.script.rules)} rules in place")

    async def _link(self, people: Sequence[Person]) -> None:
        wallets = WalletLinkServiceStub(self._channel("gateway", "bff/bff"))
        for person in people:
            await link_wallet(person, wallets)

    async def _bus(self, identity: str) -> Client:
        if identity not in self._buses:
            tls = self.stack.tls(identity)
            self._buses[identity] = await connect_bus(self.stack.nats_url, tls, identity)
            self._open.push_async_callback(self._buses[identity].close)
        return self._buses[identity]

    async def _play(self) -> None:
        """Half of the people link a wallet before they earn anything, half only afterwards."""
        half = len(self.people) // 2
        await self._link(self.people[:half])
        lines = self.script.lines
        await self._send(lines)
        operator = await self._bus("operator/ops")
        events = EventServiceStub(self._channel("connect", "operator/ops"))
        await asyncio.gather(
            await_answers(lines, operator.jetstream(), events, self.played),
            self._link(self.people[half:]),
        )

    async def _send(self, lines: Sequence[Line]) -> None:
        """Send every other line by RPC, the rest over the bus, both at once."""
        await asyncio.gather(
            send_by_rpc(
                lines[0::2],
                lambda source: self._channel("connect", f"domain-service/{source}"),
                self.played,
            ),
            send_by_bus(
                lines[1::2], lambda source: self._bus(f"domain-service/{source}"), self.played
            ),
        )

    async def _settle(self) -> None:
        """Wait until no action is open and every badge is on chain, final, at its last level."""
        levels = self.script.expected["levels"]
        wanted = {(user, code): levels[user][code] for user, code in self.script.expected["mints"]}
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            actions = self.progress.actions
            found = self.progress.levels_on_chain()
            reached = all(found.get(badge) == level for badge, level in wanted.items())
            if reached and not actions.pending + actions.dispatched:
                return

    async def _count(self, display: Display) -> None:
        actions = RewardActionServiceStub(self._channel("connect", "operator/ops"))
        while True:
            self.progress.actions = await actions.CountRewardActions(
                reward_actions_pb2.CountRewardActionsRequest()
            )
            display.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def _watch(self, person: Person) -> None:
        """Follow one person's mints as the BFF would."""
        stub = NftServiceStub(self._channel("nft", "bff/bff"))

        def open_stream(token: str) -> Any:
            return stub.WatchMintStatus(
                nft_pb2.WatchMintStatusRequest(user_id=person.user_id, resume_token=token)
            )

        async for update in watch(open_stream):
            changed = [update.change.mint] if update.HasField("change") else update.snapshot.mints
            for mint in changed:
                self.progress.mints[mint.mint_id] = mint


def report(demo: Demo, findings: Findings, seconds: float) -> int:
    """Print what happened, the machine-readable line last; return the exit code."""
    played, actions = demo.played, demo.progress.actions
    rejected = sorted(demo.script.mistakes + played.rejected, key=lambda mistake: mistake.line)
    for mistake in rejected:
        print(f"  rejected  {mistake}")
    for difference in findings.differences[:SHOWN_DIFFERENCES]:
        print(f"  DIFFERS   {difference}")
    if demo.unsettled:
        print(f"  UNSETTLED {demo.unsettled}; the logs are in {demo.stack.logs}")
    elif not findings.differences:
        print("everything equals what examples/expect.py works out from the files alone")
    summary = {
        "events_sent": played.sent + len(demo.script.mistakes),
        "events_accepted": played.accepted,
        "events_duplicate": played.duplicates,
        "events_rejected": len(rejected),
        "actions_completed": actions.completed,
        "actions_failed": actions.failed,
        "points_awarded": findings.points_awarded,
        "ledger_sum": findings.ledger_sum,
        "nfts": findings.nfts,
        "mints_finalized": findings.mints_finalized,
        "upgrades_finalized": findings.upgrades_finalized,
        "onchain_verified": findings.onchain_verified,
        "differences": len(findings.differences),
        "seconds": round(seconds, 1),
    }
    print(f"DEMO {json.dumps(summary)}")
    return int(bool(findings.differences or demo.unsettled or actions.failed))


def play(files: Files, state: Path, fresh: bool) -> int:
    """Run the demo; return the process's exit code."""
    began = monotonic()
    quiet_logs()
    try:
        script = read_script(files)
        prepare_state(state, files, fresh)
        with Stack.running(state) as stack:
            demo = Demo(stack, script, state)
            findings = asyncio.run(demo.run())
        return report(demo, findings, monotonic() - began)
    except (DemoError, StartError, StackRunningError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
