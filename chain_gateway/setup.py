"""Bringing the minting wallet and its collections on to the chain; safe to run again."""

from collections.abc import Callable

from chain_gateway import cells, query_id
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import NANOTON, Collections
from chain_gateway.ton import Block, Chain, MessageRefused
from chain_gateway.wallet import ActionList, HighloadWallet, WalletState
from mesh.config import ConfigurationError

# Deploys all and leaves something for rent and fees.
NEEDED = NANOTON // 2

_CONNECT_SECONDS = 20.0
_BLOCK_SECONDS = 15.0
_BLOCKS_PER_TRY = 20
_TRIES = 3

Say = Callable[[str], None]


class SetupFailed(ConfigurationError):
    """The collections could not be deployed; the message says what to do."""


async def set_up(chain: Chain, wallet: HighloadWallet, collections: Collections, say: Say) -> None:
    """Deploys the wallet and the collections unless they are there, telling each step by `say`.

    Raises `SetupFailed`.
    """
    say(f"Minting wallet: {wallet.address}")
    for standard, collection in collections.items():
        say(f"{standard.name} collection: {collection.address}")
    try:
        head = await chain.wait(None, _CONNECT_SECONDS)
        for _ in range(_TRIES):
            missing = await _missing(chain, collections, head)
            if not missing:
                say(f"The collections exist as of block {head.seqno}; nothing is left to do.")
                return
            head = await _deploy(chain, wallet, missing, head, say)
        if not await _missing(chain, collections, head):
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
    chain: Chain, wallet: HighloadWallet, missing: Collections, head: Block, say: Say
) -> Block:
    """Sends one message and follows the chain until all is there, or for a while."""
    account = await chain.account(wallet.address, head)
    _demand_balance(wallet, account.balance)
    state = None if account.data is None else WalletState(account.data)
    query = next(
        query
        for query in query_id.operator_ids()
        if state is None or not state.processed(query, head.time)
    )
    actions = ActionList()
    for collection in missing.values():
        actions.add(collection.deployment())
    boc = wallet.external(actions, query=query, created_at=head.time, deploy=state is None)
    what = ["the wallet"] if state is None else []
    what += [f"the {standard.name} collection" for standard in missing]
    say(f"Deploying {' and '.join(what)} …")
    for _ in range(_BLOCKS_PER_TRY):
        try:
            await chain.send(boc)
        except MessageRefused as refusal:
            say(f"  not taken (it may have run already): {refusal}"[:160])
        head = await chain.wait(head, _BLOCK_SECONDS)
        if not await _missing(chain, missing, head):
            break
    return head


async def _missing(chain: Chain, collections: Collections, at: Block) -> Collections:
    accounts = await chain.accounts([each.address for each in collections.values()], at)
    return {
        standard: collection
        for standard, collection in collections.items()
        if accounts[collection.address].data is None
    }


def _demand_balance(wallet: HighloadWallet, balance: int) -> None:
    if balance >= NEEDED:
        return
    friendly = cells.friendly(wallet.address)
    raise SetupFailed(
        f"The minting wallet has {balance / NANOTON:.3f} TON and needs {NEEDED / NANOTON} TON to "
        f"deploy, then about 0.08 TON a mint. Send some to {friendly} and run setup again."
    )
