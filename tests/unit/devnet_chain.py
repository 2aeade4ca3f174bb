"""A chain over a store without a network, with one highload wallet that was there first."""

import hashlib
from pathlib import Path

import nacl.signing
from pytoniq import HighloadWalletV3
from pytoniq.contract.wallets.highload_v3 import HIGHLOAD_V3_WALLET_CODE
from pytoniq_core import Address, Cell, StateInit
from pytoniq_core.tlb.transaction import ExternalMsgInfo, MessageAny

from ton_devnet.accounts import EMPTY_SHARD_ACCOUNT
from ton_devnet.chain import Chain
from ton_devnet.engine import Engine, parse_config
from ton_devnet.faucet import genesis_account
from ton_devnet.server import CONFIG
from ton_devnet.store import Store
from ton_devnet.validator import Validator

NOW = 1_800_000_000
KEY = nacl.signing.SigningKey(b"\x05" * 32)
WALLET_DATA = HighloadWalletV3.create_data_cell(bytes(KEY.verify_key))
WALLET = StateInit(code=HIGHLOAD_V3_WALLET_CODE, data=WALLET_DATA).serialize().hash


def open_chain(path: Path, clock: int = NOW, crowd: int = 0) -> Chain:
    """With a `crowd`, the first block has so many more accounts, all of them empty."""
    config = Validator(KEY).elected_in(parse_config(CONFIG.read_text()))
    chain = Chain(Store(path), Engine(config), config, lambda: clock)
    if chain.is_new:
        wallet, boc = genesis_account(KEY, clock)
        others = (hashlib.sha256(bytes([i // 256, i % 256])).digest() for i in range(crowd))
        chain.endow({wallet: boc} | dict.fromkeys(others, EMPTY_SHARD_ACCOUNT))
    return chain


def transfer(query_id: int, to: bytes = b"\x09" * 32, value: int = 10**9) -> bytes:
    wallet = HighloadWalletV3(None, Address((0, WALLET)))
    message = wallet.create_wallet_internal_message(
        Address((0, to)), send_mode=1, value=value, body=Cell.empty(), bounce=False
    )
    private = bytes(KEY) + bytes(KEY.verify_key)
    body = wallet.raw_create_transfer_msg(private, 0x10AD, [message], query_id, 3600, NOW - 10)
    info = ExternalMsgInfo(None, Address((0, WALLET)), 0)
    return bytes(MessageAny(info=info, init=None, body=body).serialize().to_boc())


def balance(chain: Chain, address: bytes = b"\x09" * 32) -> int:
    trie = chain.head.accounts
    assert trie is not None
    leaves = {key: value for key, _, value in chain.store.leaves()}
    assert (trie.get(int.from_bytes(address, "big")) is None) == (address not in leaves)
    return leaves.get(address, 0)


def settle(chain: Chain) -> None:
    while chain.pending:
        chain.produce()
