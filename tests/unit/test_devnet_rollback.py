"""Rolling back: whatever was undone is gone from memory and disk, and the rest is as it was."""

import random
import sqlite3
from pathlib import Path

import pytest

from tests.unit.devnet_chain import WALLET, balance, open_chain, settle, transfer
from ton_devnet import history
from ton_devnet.chain import Chain, TooFarBackError
from ton_devnet.store import WINDOW
from ton_devnet.trie import TrieError

SOMEBODY = b"\x09" * 32


def paid(chain: Chain, query_id: int) -> None:
    chain.submit(transfer(query_id))
    settle(chain)


def test_an_undone_external_runs_again_on_another_fork(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.produce()
    paid(chain, 1)
    before = chain.head
    paid(chain, 2)
    undone = chain.head
    chain.roll_back(undone.step.seqno - before.step.seqno)
    assert chain.head.master.id == before.master.id
    assert balance(chain) == 10**9
    assert chain.pending == 1
    settle(chain)
    assert balance(chain) == 2 * 10**9
    fork = chain.block(undone.step.seqno)
    assert fork is not None
    assert fork.master.id != undone.master.id


def test_an_undone_external_can_be_lost(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.produce()
    paid(chain, 1)
    chain.roll_back(2, lose_externals=True)
    assert (chain.pending, balance(chain)) == (0, 0)
    assert chain.store.transactions_down_from(WALLET, 2**62, 1) == []
    paid(chain, 1)
    assert balance(chain) == 10**9


def test_a_message_sent_before_and_delivered_after_is_delivered_again(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.produce()
    chain.submit(transfer(1))
    chain.produce()
    assert chain.pending == 1
    chain.produce()
    assert balance(chain) == 10**9
    chain.roll_back(1, lose_externals=True)
    assert (chain.pending, balance(chain)) == (1, 0)
    settle(chain)
    assert balance(chain) == 10**9


def test_a_rollback_is_on_disk(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    chain.produce()
    paid(chain, 1)
    paid(chain, 2)
    chain.roll_back(3)
    reopened = open_chain(tmp_path / "db")
    assert reopened.head.master.id == chain.head.master.id
    assert reopened.pending == chain.pending == 2
    settle(chain)
    settle(reopened := open_chain(tmp_path / "db"))
    assert balance(reopened) == 2 * 10**9


def test_nothing_is_undone_that_cannot_be(tmp_path: Path) -> None:
    chain = open_chain(tmp_path / "db")
    with pytest.raises(TooFarBackError, match="make some blocks first"):
        chain.roll_back(1)
    for _ in range(3 * WINDOW):
        chain.produce()
    with pytest.raises(TooFarBackError, match=f"give 1 to {WINDOW}"):
        chain.roll_back(WINDOW + 1)
    chain.roll_back(WINDOW)
    with pytest.raises(TooFarBackError, match="make some blocks first"):
        chain.roll_back(1)
    reopened = open_chain(tmp_path / "db")
    reopened.produce()
    with pytest.raises(TooFarBackError, match="give 1 to 1"):
        reopened.roll_back(2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_mix_of_blocks_rollbacks_and_restarts_adds_up(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model says what everybody must have; with small runs, so that history is folded too."""
    monkeypatch.setattr(history, "GROUP", 16)
    monkeypatch.setattr(history, "_PREFIX_WIDTH", 28)
    rng = random.Random(seed)
    chain = open_chain(tmp_path / "db")
    chain.produce()
    balances = {2: 0}
    query_id = 0
    for _ in range(150):
        action = rng.random()
        if action < 0.55:
            query_id += 1
            paid(chain, query_id)
        elif action < 0.8:
            chain.produce()
        elif action < 0.9:
            oldest, head = chain.store.oldest_head(), chain.head.step.seqno
            if head > oldest:
                chain.roll_back(rng.randint(1, head - oldest), lose_externals=True)
                known = max(seqno for seqno in balances if seqno <= chain.head.step.seqno)
                balances = {seqno: sum_ for seqno, sum_ in balances.items() if seqno <= known}
                # What was on its way between two accounts arrives after all.
                settle(chain)
        else:
            chain = open_chain(tmp_path / "db")
        balances[chain.head.step.seqno] = balance(chain)
    assert [*balances.values()] == sorted(balances.values())
    database = sqlite3.connect(tmp_path / "db")
    (arrived,) = database.execute(
        "SELECT count(*) FROM transactions WHERE address = ?", (SOMEBODY,)
    ).fetchone()
    assert balance(chain) == arrived * 10**9
    assert open_chain(tmp_path / "db").head.shard.id == chain.head.shard.id


def test_a_crowd_is_not_looked_at_again(tmp_path: Path) -> None:
    """Enough accounts for digests of subtrees: they hold over restarts, changes and rollbacks."""
    chain = open_chain(tmp_path / "db", crowd=3000)
    chain.produce()
    parts = chain.store.subtrees()
    assert len(parts) == 256
    assert all(part.hash is not None for part in parts)
    chain = open_chain(tmp_path / "db")
    before = chain.head
    paid(chain, 1)
    assert balance(chain) == 10**9
    now, then = chain.head.accounts, before.accounts
    assert now is not None
    assert then is not None
    key = int.from_bytes(SOMEBODY, "big")
    assert (then.get(key), then.proof(key).hash0) == (None, then.cell().hash)
    assert now.proof(key).hash0 == now.cell().hash != then.cell().hash
    *_, (neighbour, _, _) = chain.store.leaves(SOMEBODY[:1])
    assert then.get(int.from_bytes(neighbour, "big")) is not None
    after = chain.head
    chain = open_chain(tmp_path / "db")
    assert chain.head.shard.id == after.shard.id
    chain.roll_back(2, lose_externals=True)
    assert chain.head.shard.id == before.shard.id
    assert [part.hash is None for part in chain.store.subtrees()].count(True) == 2
    chain = open_chain(tmp_path / "db")
    assert (chain.head.shard.id, balance(chain)) == (before.shard.id, 0)
    paid(chain, 2)
    assert balance(open_chain(tmp_path / "db")) == 10**9


def test_a_damaged_subtree_is_noticed_when_it_is_wanted(tmp_path: Path) -> None:
    open_chain(tmp_path / "db", crowd=3000).store.close()
    database = sqlite3.connect(tmp_path / "db")
    (neighbour,) = database.execute(
        "SELECT address FROM account WHERE substr(address, 1, 1) = x'09' LIMIT 1"
    ).fetchone()
    database.execute("UPDATE account SET balance = balance + 1 WHERE address = ?", (neighbour,))
    database.commit()
    trie = open_chain(tmp_path / "db").head.accounts
    assert trie is not None
    with pytest.raises(TrieError, match="does not match its digest"):
        trie.get(int.from_bytes(neighbour, "big"))
