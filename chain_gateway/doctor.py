"""Whether minting could work as configured, and what to do where it could not.

Reads the environment and the chain, and changes neither; needs no database.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from chain_gateway import cells
from chain_gateway.accounts import Account
from chain_gateway.composition import further_wallets, minting_wallet
from chain_gateway.config import ChainSettings
from chain_gateway.contracts.verify import differences
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import NANOTON, Collections, read_minters, read_next_index, runway
from chain_gateway.ton import Block, Chain
from chain_gateway.wallet import HighloadWallet
from mesh.clock import utc_now
from mesh.config import ConfigurationError

_CONNECT_SECONDS = 20.0
_PEER_SECONDS = 5.0
_OLDEST_HEAD_SECONDS = 60
# A validator's clock may be ahead of ours by this much without anybody being wrong.
_AHEAD_SECONDS = 5
_FEW_MINTS = 1_000


class Verdict(Enum):
    """How a check ended; only a problem keeps the Gateway from minting."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it unless it is fine."""

    check: str
    verdict: Verdict
    said: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict.value:<8} {self.check:<12} {self.said}"
        return f"{line}\n{'':<22}→ {self.remedy}" if self.remedy else line


async def examine() -> AsyncIterator[Finding]:
    """Every check in turn; ends where the rest could not be told."""
    for finding in _contracts():
        yield finding
    try:
        settings = ChainSettings()
        network = settings.network()
        wallet, collections = minting_wallet(settings)
        wallets = [wallet, *further_wallets(settings)]
    except ConfigurationError as error:
        yield Finding("config", Verdict.PROBLEM, str(error), "Set what it names, and ask again.")
        return
    yield Finding("config", Verdict.OK, f"{settings.ton_config} and the wallet's key are readable")
    yield _reached(*await _peers(network))
    async with Chain(network, settings.ton_trust_level) as chain:
        try:
            head = await chain.wait(None, _CONNECT_SECONDS)
            yield trust(settings.ton_trust_level, head)
            yield clock(head.time, utc_now())
            for each in wallets:
                account = await chain.account(each.address, head)
                yield deployment(each, account)
                yield balance(each, account.balance, settings.reserve)
            async for finding in _collections(chain, wallets, collections, head):
                yield finding
        except ChainUnavailable as error:
            yield Finding(
                "chain",
                Verdict.PROBLEM,
                f"No answer that holds at trust level {settings.ton_trust_level}: {error.message}",
                "Check the network, the lite-servers and the init_block in GATEWAY_TON_CONFIG.",
            )


def _contracts() -> list[Finding]:
    found = differences()
    if not found:
        return [Finding("contracts", Verdict.OK, "sources, code and hashes belong together")]
    remedy = "Install an unchanged release, or build the contracts anew (contracts/)."
    return [Finding("contracts", Verdict.PROBLEM, line, remedy) for line in found]


async def _peers(network: dict[str, Any]) -> tuple[int, int]:
    """How many lite-servers answer, and how many there are."""

    async def answers(server: Any) -> bool:
        async with Chain({**network, "liteservers": [server]}, 2) as chain:
            try:
                await chain.wait(None, _PEER_SECONDS)
            except ChainUnavailable:
                return False
            return True

    answered = await asyncio.gather(*(answers(server) for server in network["liteservers"]))
    return sum(answered), len(answered)


def _reached(answering: int, configured: int) -> Finding:
    said = f"{answering} of {configured} lite-servers answer"
    if not answering:
        remedy = "Check the firewall (outgoing TCP) and take a newer global config."
        return Finding("lite-servers", Verdict.PROBLEM, said, remedy)
    if answering == 1 and configured > 1:
        remedy = "Take a newer global config, or add lite-servers of your own."
        return Finding("lite-servers", Verdict.WARNING, said, remedy)
    return Finding("lite-servers", Verdict.OK, said)


def trust(level: int, head: Block) -> Finding:
    """What is checked of that which lite-servers say."""
    checked = {
        0: "validators' signatures and proofs are checked",
        1: "proofs are checked against the head that lite-servers name",
        2: "nothing is checked",
    }
    said = f"level {level}: {checked[level]}; head is block {head.seqno}"
    if level < 2:
        return Finding("trust", Verdict.OK, said)
    remedy = "Set GATEWAY_TON_TRUST_LEVEL to 1 or 0 where lite-servers are not your own."
    return Finding("trust", Verdict.WARNING, said, remedy)


def clock(head_time: int, now: datetime) -> Finding:
    """This machine's clock against the chain's."""
    age = round(now.timestamp()) - head_time
    if age < -_AHEAD_SECONDS:
        remedy = "Set this machine's clock right (NTP)."
        return Finding("clock", Verdict.PROBLEM, f"behind the chain's by {-age} s", remedy)
    said = f"the head is {age} s old"
    if age > _OLDEST_HEAD_SECONDS:
        remedy = "Set this machine's clock right (NTP); if it is, the lite-servers lag: use others."
        return Finding("clock", Verdict.PROBLEM, said, remedy)
    return Finding("clock", Verdict.OK, said)


def deployment(wallet: HighloadWallet, account: Account) -> Finding:
    """Whether the wallet's contract is there."""
    if account.data is None:
        remedy = "Send TON to it, then run `python -m chain_gateway setup`."
        return Finding("wallet", Verdict.PROBLEM, f"{wallet.address} is not deployed", remedy)
    return Finding("wallet", Verdict.OK, f"{wallet.address} is deployed")


def balance(wallet: HighloadWallet, nanoton: int, reserve: int) -> Finding:
    """What the wallet can still pay for, as the service reckons: without the reserve."""
    mints = runway(nanoton, reserve)
    kept = f"{reserve / NANOTON:g} of which stay, " if reserve else ""
    said = f"{nanoton / NANOTON:.3f} TON, {kept}pay for about {mints} mints"
    remedy = f"Send TON to {cells.friendly(wallet.address)}."
    if not mints:
        return Finding("balance", Verdict.PROBLEM, said, remedy)
    if mints < _FEW_MINTS:
        return Finding("balance", Verdict.WARNING, said, remedy)
    return Finding("balance", Verdict.OK, said)


async def _collections(
    chain: Chain, wallets: Sequence[HighloadWallet], collections: Collections, head: Block
) -> AsyncIterator[Finding]:
    for standard, collection in collections.items():
        check = f"{standard.name.lower()} items"
        account = await chain.account(collection.address, head)
        if account.data is None:
            yield Finding(
                check,
                Verdict.PROBLEM,
                f"collection {collection.address} is not deployed",
                "Run `python -m chain_gateway setup`. Was it there? Then key, time-out, name or"
                " description differ from when it was deployed: they make its address.",
            )
            continue
        owner, minters = read_minters(account.data)
        strangers = {wallet.address for wallet in wallets} - minters - {owner}
        if strangers:
            yield Finding(
                check,
                Verdict.PROBLEM,
                f"collection {collection.address} does not let {', '.join(sorted(strangers))} mint",
                f"Run `python -m chain_gateway setup` with the key of its owner, {owner}.",
            )
        else:
            said = f"{collection.address}, next index {read_next_index(account.data)}"
            yield Finding(check, Verdict.OK, said)
