"""Bringing the minting wallets and their collections on to the chain; safe to run again."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pytoniq_core.boc.cell import Cell

from chain_gateway import cells, query_id
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import NANOTON, Collections, read_minters, set_minters
from chain_gateway.ton import Block, Chain, MessageRefused
from chain_gateway.wallet import ActionList, HighloadWallet, WalletState
from mesh.config import ConfigurationError

# Deploys all and leaves something for rent and fees.
NEEDED = NANOTON // 2
# To deploy another wallet and to let it mint.
NEEDED_PER_MINTER = NANOTON // 5

_CONNECT_SECONDS = 20.0
_BLOCK_SECONDS = 15.0
_BLOCKS_PER_TRY = 20
_TRIES = 3

Say = Callable[[str], None]


class SetupFailed(ConfigurationError):
    """The collections could not be deployed; the message says what to do."""


async def set_up(
    chain: Chain,
    wallet: HighloadWallet,
    collections: Collections,
    say: Say,
    *,
    minters: Sequence[HighloadWallet] = (),
) -> None:
    """Deploys the wallets and the collections unless they are there, telling each step by `say`.

    `wallet` owns the collections; the `minters`, and no others, may mint into them too. Raises
    `SetupFailed`.
    """
    say(f"Minting wallet: {wallet.address}")
    for minter in minters:
        say(f"Further wallet: {minter.address}")
    for standard, collection in collections.items():
        say(f"{standard.name} collection: {collection.address}")
    try:
        head = await chain.wait(None, _CONNECT_SECONDS)
        for _ in range(_TRIES):
            missing = await _missing(chain, collections, minters, head)
            if not missing:
                say(f"The collections exist as of block {head.seqno}; nothing is left to do.")
                return
            head = await _deploy(chain, wallet, collections, minters, head, say)
        if not await _missing(chain, collections, minters, head):
            say(f"The collections exist as of block {head.seqno}.")
            return
    except ChainUnavailable:
        raise SetupFailed(
            "No lite-server of the global config answers; check GATEWAY_TON_CONFIG and the "
            "network, then run setup again."
        ) from None
    raise SetupFailed(
        "The wallet ran the message, but a collection did not appear; look at the wallet's "
        "transactions in an explorer, then run setup again."
    )


async def _deploy(
    chain: Chain,
    wallet: HighloadWallet,
    collections: Collections,
    minters: Sequence[HighloadWallet],
    head: Block,
    say: Say,
) -> Block:
    """Sends one message and follows the chain until all is there, or for a while."""
    missing = await _missing(chain, collections, minters, head)
    account = await chain.account(wallet.address, head)
    _demand_balance(wallet, account.balance, NEEDED + len(minters) * NEEDED_PER_MINTER)
    state = None if account.data is None else WalletState(account.data)
    query = next(
        query
        for query in query_id.operator_ids()
        if state is None or not state.processed(query, head.time)
    )
    actions = ActionList()
    for step in missing:
        actions.add(step.message)
    boc = wallet.external(actions, query=query, created_at=head.time, deploy=state is None)
    what = ["the wallet"] if state is None else []
    what += [step.what for step in missing]
    say(f"Deploying {' and '.join(what)} …")
    for _ in range(_BLOCKS_PER_TRY):
        try:
            await chain.send(boc)
        except MessageRefused as refusal:
            say(f"  not taken (it may have run already): {refusal}"[:160])
        head = await chain.wait(head, _BLOCK_SECONDS)
        if not await _missing(chain, collections, minters, head):
            break
    return head


class _Step(NamedTuple):
    """Something that is not as it should be, and the owner's message that makes it so."""

    what: str
    message: Cell


async def _missing(
    chain: Chain, collections: Collections, minters: Sequence[HighloadWallet], at: Block
) -> list[_Step]:
    """In the order in which the messages have to arrive."""
    mandated = {minter.address for minter in minters}
    accounts = await chain.accounts(
        [*(each.address for each in collections.values()), *sorted(mandated)], at
    )
    steps = [
        _Step(f"the wallet {minter.address}", minter.deployment())
        for minter in minters
        if accounts[minter.address].data is None
    ]
    for standard, collection in collections.items():
        data = accounts[collection.address].data
        if data is None:
            steps.append(_Step(f"the {standard.name} collection", collection.deployment()))
        present = set() if data is None else read_minters(data)[1]
        if present != mandated:
            mandate = set_minters(collection.address, mandated)
            steps.append(_Step(f"the minters of the {standard.name} collection", mandate))
    return steps


def _demand_balance(wallet: HighloadWallet, balance: int, needed: int) -> None:
    if balance >= needed:
        return
    friendly = cells.friendly(wallet.address)
    raise SetupFailed(
        f"The minting wallet has {balance / NANOTON:.3f} TON and needs {needed / NANOTON} TON to "
        f"deploy, then about 0.08 TON a mint. Send some to {friendly} and run setup again."
    )
