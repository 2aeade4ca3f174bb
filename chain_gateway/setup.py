"""Bringing the minting wallet and the collection on to the chain; safe to run again and again."""

from collections.abc import Callable

from chain_gateway import cells, query_id
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import NANOTON, Collection
from chain_gateway.ton import Block, Chain, MessageRefused
from chain_gateway.wallet import ActionList, HighloadWallet, WalletState
from mesh.config import ConfigurationError

# Deploys both and leaves something for rent and fees.
NEEDED = NANOTON // 2

_CONNECT_SECONDS = 20.0
_BLOCK_SECONDS = 15.0
_BLOCKS_PER_TRY = 20
_TRIES = 3

Say = Callable[[str], None]


class SetupFailed(ConfigurationError):
    """The collection could not be deployed; the message says what to do."""


async def set_up(chain: Chain, wallet: HighloadWallet, collection: Collection, say: Say) -> None:
    """Deploys the wallet and the collection unless they are there, telling each step through `say`.

    Raises `SetupFailed`.
    """
    say(f"Minting wallet: {wallet.address}")
    say(f"Collection:     {collection.address}")
    try:
        head = await chain.wait(None, _CONNECT_SECONDS)
        for _ in range(_TRIES):
            if await _exists(chain, collection, head):
                say(f"The collection exists as of block {head.seqno}; nothing is left to do.")
                return
            head = await _deploy(chain, wallet, collection, head, say)
        if await _exists(chain, collection, head):
            say(f"The collection exists as of block {head.seqno}.")
            return
    except ChainUnavailable:
        raise SetupFailed(
            "No lite-server of the global config answers; check GATEWAY_TON_CONFIG and the "
            "network, then run setup again."
        ) from None
    raise SetupFailed(
        "The wallet ran the message, but the collection did not appear; look at the wallet's "
        "transactions in an explorer, then run setup again."
    )


async def _deploy(
    chain: Chain, wallet: HighloadWallet, collection: Collection, head: Block, say: Say
) -> Block:
    """Sends one deployment and follows the chain until the collection is there, or for a while."""
    account = await chain.account(wallet.address, head)
    _demand_balance(wallet, account.balance)
    state = None if account.data is None else WalletState(account.data)
    query = next(
        query
        for query in query_id.operator_ids()
        if state is None or not state.processed(query, head.time)
    )
    actions = ActionList()
    actions.add(collection.deployment())
    boc = wallet.external(actions, query=query, created_at=head.time, deploy=state is None)
    say("Deploying " + ("the wallet and the collection …" if state is None else "the collection …"))
    for _ in range(_BLOCKS_PER_TRY):
        try:
            await chain.send(boc)
        except MessageRefused as refusal:
            say(f"  not taken (it may have run already): {refusal}"[:160])
        head = await chain.wait(head, _BLOCK_SECONDS)
        if await _exists(chain, collection, head):
            break
    return head


async def _exists(chain: Chain, collection: Collection, at: Block) -> bool:
    return (await chain.account(collection.address, at)).data is not None


def _demand_balance(wallet: HighloadWallet, balance: int) -> None:
    if balance >= NEEDED:
        return
    friendly = cells.friendly(wallet.address)
    raise SetupFailed(
        f"The minting wallet has {balance / NANOTON:.3f} TON and needs {NEEDED / NANOTON} TON to "
        f"deploy, then about 0.08 TON a mint. Send some to {friendly} and run setup again."
    )
