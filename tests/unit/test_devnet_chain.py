"""The chain over its store, without a network: what a restart finds, and what it forgets."""

import sqlite3
from pathlib import Path

import nacl.signing
import pytest
from pytoniq import HighloadWalletV3
from pytoniq.contract.wallets.highload_v3 import HIGHLOAD_V3_WALLET_CODE
from pytoniq_core import Address, Cell, StateInit
from pytoniq_core.tlb.transaction import ExternalMsgInfo, MessageAny

from ton_devnet import history
from ton_devnet.chain import Chain, StateDamagedError
from ton_devnet.engine import Engine, parse_config
from ton_devnet.faucet import genesis_account
from ton_devnet.messages import MessageRejectedError
from ton_devnet.server import CONFIG
from ton_devnet.store import WINDOW, Store
from ton_devnet.validator import Validator

NOW = 1_800_000_000
KEY = nacl.signing.SigningKey(b"\x05" * 32)
WALLET_DATA = HighloadWalletV3.create_data_cell(bytes(KEY.verify_key))
WALLET = StateInit(code=HIGHLOAD_V3_WALLET_CODE, data=WALLET_DATA).serialize().hash


def open_chain(path: Path, clock: int = NOW) -> Chain:
    config = Validator(KEY).elected_in(parse_config(CONFIG.read_text()))
    chain = Chain(Store(path), Engine(config), config, clock=lambda: clock)
    if chain.is_new:
        chain.endow(dict([genesis_account(KEY, clock)]))
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


def test_an_accepted_message_outlives_the_process(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.submit(transfer(1))
    chain.produce()
    chain.submit(transfer(2))
    assert chain.pending == 2  # one external, one internal on its way
    reopened = open_chain(tmp_path / "db")
    assert reopened.head.master.id == chain.head.master.id
    settle(reopened)
    assert balance(reopened) == 2 * 10**9


def test_the_same_message_while_it_waits_is_taken_once(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.submit(transfer(1))
    chain.submit(transfer(1))
    assert chain.pending == 1
    settle(chain)
    with pytest.raises(MessageRejectedError, match="exitcode=36"):
        chain.submit(transfer(1))


def test_the_same_inputs_give_the_same_chain(tmp_path: Path) -> None:
    heads = []
    for name in ("one", "two"):
        chain = open_chain(tmp_path / name)
        for query_id in range(5):
            chain.submit(transfer(query_id, to=bytes([query_id]) * 32))
            settle(chain)
        heads.append(chain.head.master.id)
    assert heads[0] == heads[1]


def test_time_never_goes_back(tmp_path: Path) -> None:
    assert open_chain(tmp_path / "db").produce().step.utime == NOW
    assert open_chain(tmp_path / "db", clock=NOW - 1000).produce().step.utime == NOW


def test_states_older_than_the_window_are_forgotten_and_nothing_else(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    sums = {}
    for query_id in range(2 * WINDOW):
        chain.submit(transfer(query_id))
        settle(chain)
        sums[chain.head.step.seqno] = balance(chain)
    head = chain.head.step.seqno
    database = sqlite3.connect(tmp_path / "db")
    versions = "SELECT min(seqno) FROM account WHERE address = ?"
    oldest = database.execute(versions, (b"\x09" * 32,)).fetchone()[0]
    assert head - WINDOW - 3 <= oldest <= head - WINDOW + 1
    as_of = "SELECT balance FROM account WHERE address = ? AND seqno <= ? ORDER BY seqno DESC"
    for seqno in range(head - WINDOW + 1, head + 1):
        held = database.execute(as_of, (b"\x09" * 32, seqno)).fetchone()[0]
        assert held == sums.get(seqno, sums.get(seqno - 1))
    recent, old = chain.block(head - WINDOW + 1), chain.block(head - WINDOW)
    assert recent is not None
    assert old is not None
    assert recent.accounts is not None
    assert old.accounts is None
    assert open_chain(tmp_path / "db").head.shard.id == chain.head.shard.id


def test_a_long_chain_reopens_at_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small runs, so that several collapse; the head's hash covers the whole history."""
    monkeypatch.setattr(history, "GROUP", 16)
    monkeypatch.setattr(history, "_PREFIX_WIDTH", 28)
    chain = open_chain(tmp_path / "db")
    for seqno in range(2, 150):
        assert chain.produce().step.seqno == seqno
        if seqno > 90:
            chain.store.close()
            chain = open_chain(tmp_path / "db")
    assert [group.number for group in chain.store.groups()] == [1, 2, 3, 4]


def test_a_damaged_store_is_noticed(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.submit(transfer(1))
    settle(chain)
    database = sqlite3.connect(tmp_path / "db")
    database.execute("UPDATE account SET balance = balance + 1 WHERE address = ?", (b"\x09" * 32,))
    database.commit()
    with pytest.raises(StateDamagedError, match="does not lead to"):
        open_chain(tmp_path / "db")
