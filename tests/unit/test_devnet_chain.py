"""The chain over its store, without a network: what a restart finds, and what it forgets."""

import sqlite3
from pathlib import Path

import pytest

from tests.unit.devnet_chain import NOW, balance, open_chain, settle, transfer
from ton_devnet import history
from ton_devnet.chain import StateDamagedError
from ton_devnet.messages import MessageRejectedError
from ton_devnet.store import WINDOW, Store, StoreVersionError


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


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    open_chain(tmp_path / "db").store.close()
    database = sqlite3.connect(tmp_path / "db")
    database.execute("PRAGMA user_version = 1")
    database.close()
    with pytest.raises(StoreVersionError, match="format 1, this ton_devnet writes"):
        Store(tmp_path / "db")
