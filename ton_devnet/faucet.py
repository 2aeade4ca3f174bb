"""The faucet: a highload wallet v3 that exists from the first block, and how to draw from it."""

import asyncio
import secrets
from typing import cast

from nacl.signing import SigningKey
from pytoniq.contract.wallets.highload_v3 import HIGHLOAD_V3_WALLET_CODE, HighloadWalletV3
from pytoniq.liteclient.balancer import LiteBalancer
from pytoniq_core.boc.address import Address
from pytoniq_core.boc.cell import Cell
from pytoniq_core.tlb.account import StateInit

from ton_devnet.cells import Builder, to_boc
from ton_devnet.cells import from_boc as cells_from_boc
from ton_devnet.folder import StateFolder, StateFolderError

FAUCET = "faucet"
NANOTONS = 10**9
FAUCET_BALANCE = 10**9 * NANOTONS
_ARRIVAL_SECONDS = 60.0
_POLL_SECONDS = 0.1


def genesis_account(key: SigningKey, now: int) -> tuple[bytes, bytes]:
    """(address, ShardAccount BoC) of the faucet's wallet, active and full."""
    data = HighloadWalletV3.create_data_cell(bytes(key.verify_key))
    init = StateInit(code=HIGHLOAD_V3_WALLET_CODE, data=data).serialize()
    state = cells_from_boc(init.to_boc())[0]
    account = Builder().uint(1, 1).uint(0b100, 3).uint(0, 8).raw(init.hash)
    account.uint(1, 3).uint(1, 8).uint(1, 3).uint(103, 8).uint(0, 3)  # StorageUsed; recounted later
    account.uint(now, 32).uint(0, 1)
    account.uint(0, 64).coins(FAUCET_BALANCE).uint(0, 1).uint(1, 1).append(state)
    shard_account = Builder().ref(account.cell()).uint(0, 256).uint(0, 64)
    return init.hash, to_boc(shard_account.cell())


async def fund(folder: StateFolder, address: Address, nanotons: int, *, up_to: bool = False) -> int:
    """Send from the faucet and wait until it has arrived; gives the new balance in nanotons.

    With `up_to`, send only what the balance lacks of that sum, or nothing. Raises
    StateFolderError when the network is not there or does not deliver.
    """
    key = folder.existing_key(FAUCET)
    client = LiteBalancer.from_config(folder.read_global_config(), trust_level=1)
    await client.start_up()
    try:
        if not client.alive_peers_num:
            raise StateFolderError(
                f"the network in {folder.path} does not answer; start it:"
                f" python -m ton_devnet serve --state {folder.path}"
            )
        if up_to:
            balance = cast(int, (await client.get_account_state(address)).balance)
            if balance >= nanotons:
                return balance
            nanotons -= balance
        wallet = await HighloadWalletV3.from_private_key(client, bytes(key) + bytes(key.verify_key))
        message = HighloadWalletV3.create_wallet_internal_message(
            address, send_mode=1, value=nanotons, body=Cell.empty(), bounce=False
        )
        before = await _last_lt(client, address)
        head = await client.get_masterchain_info_ext()
        # Signed by the chain's clock: it may be far from the wall's.
        body = wallet.raw_create_transfer_msg(
            wallet.private_key,
            wallet.wallet_id,
            [message],
            _random_query_id(),
            wallet.timeout,
            head["last_utime"],
        )
        await wallet.send_external(body=body)
        return await _arrival(client, wallet.address, address, nanotons, before)
    finally:
        await client.close_all()


def _random_query_id() -> int:
    """So that any number of people may draw at once. Bit number 1023 is forbidden."""
    return secrets.randbelow(1 << 13) << 10 | secrets.randbelow(1023)


async def _last_lt(client: LiteBalancer, address: Address) -> int:
    _, shard_account = await client.raw_get_account_state(address)
    return 0 if shard_account is None else cast(int, shard_account.last_trans_lt)


async def _arrival(
    client: LiteBalancer, faucet: Address, address: Address, nanotons: int, before: int
) -> int:
    """Balance once a transaction newer than `before` has brought this sum from the faucet."""
    deadline = asyncio.get_running_loop().time() + _ARRIVAL_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        if await _last_lt(client, address) > before:
            for transaction in await client.get_transactions(address, 16):
                info = transaction.in_msg.info
                if (
                    transaction.lt > before
                    and transaction.in_msg.is_internal
                    and info.src == faucet
                    and info.value.grams == nanotons
                ):
                    return cast(int, (await client.get_account_state(address)).balance)
        await asyncio.sleep(_POLL_SECONDS)
    raise StateFolderError(
        f"the transfer did not arrive within {_ARRIVAL_SECONDS:.0f} s; look at the server's log"
    )
