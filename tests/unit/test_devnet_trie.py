"""The trie of hashes has the same root as the dictionary pytoniq builds from the same entries."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell as TheirCell
from pytoniq_core import HashMap
from pytoniq_core.tlb.block import ShardAccounts

from ton_devnet import history
from ton_devnet.blocks import ACCOUNTS, HISTORY, BlockRef
from ton_devnet.cells import Builder, Cell, Digest, merkle_proof, to_boc
from ton_devnet.trie import PLAIN, Schema, Trie, bits, read_dictionary

INTEGERS = Schema(
    256, lambda _a, _b: None, lambda _b, _e: None, lambda b, value: b.uint(value, 64), None
)
keys = st.lists(
    st.one_of(
        st.integers(0, 2**256 - 1), st.integers(0, 40), st.integers(0, 9).map((1).__lshift__)
    ),
    unique=True,
    min_size=1,
    max_size=60,
)


@given(keys)
@settings(max_examples=60, deadline=None)
def test_same_root_as_pytoniq_for_any_set_of_keys(entries: list[int]) -> None:
    theirs = HashMap(256).with_uint_values(64)
    mine = Trie(INTEGERS)
    for number, key in enumerate(entries):
        theirs.set_int_key(key, number)
        mine = mine.set(key, number, None)
    assert mine.root is not None
    expected = theirs.serialize()
    assert expected is not None
    assert mine.root.hash == expected.hash
    ordered = sorted((bits(key, 256), number, None) for number, key in enumerate(entries))
    built = Trie.build(INTEGERS, ordered)
    assert built.root is not None
    assert built.root.hash == mine.root.hash
    read = {key: leaf.uint(64) for key, leaf in read_dictionary(mine.root.tree(), 256)}
    assert read == {key: number for number, key in enumerate(entries)}


def account(rng: random.Random) -> tuple[bytes, int]:
    lt = rng.getrandbits(60)
    leaf = rng.randbytes(32) + (0).to_bytes(2, "big") + rng.randbytes(32) + lt.to_bytes(8, "big")
    return leaf, rng.randrange(10**12)


@given(st.integers())
@settings(max_examples=20, deadline=None)
def test_augmented_sums_and_proofs_are_read_by_pytoniq(seed: int) -> None:
    rng = random.Random(seed)
    rows = {rng.getrandbits(256): account(rng) for _ in range(rng.randrange(1, 30))}
    trie = Trie(ACCOUNTS)
    for key, (leaf, balance) in rows.items():
        trie = trie.set(key, leaf, balance)
    wanted = rng.choice(list(rows))
    proof = TheirCell.one_from_boc(to_boc(merkle_proof(trie.proof(wanted))))
    assert proof.refs[0].get_hash(0) == trie.cell().hash
    accounts, extras = ShardAccounts.deserialize(proof.refs[0].begin_parse())
    leaf = accounts[wanted]
    assert leaf.cell.refs[0].get_hash(0) == rows[wanted][0][:32]
    assert leaf.last_trans_lt == int.from_bytes(rows[wanted][0][66:], "big")
    assert trie.extra == sum(balance for _, balance in rows.values())
    assert max(extra.balance.grams for extra in extras) == trie.extra


@given(keys, st.integers(0, 2**256 - 1))
@settings(max_examples=30, deadline=None)
def test_earlier_tries_stay_as_they_were(entries: list[int], extra: int) -> None:
    trie = Trie.build(INTEGERS, sorted((bits(key, 256), 1, None) for key in entries))
    assert trie.root is not None
    before = trie.root.hash
    trie.set(extra, 2, None).set(entries[0], 3, None)
    assert trie.root.hash == before
    assert trie.get(entries[0]) == 1
    assert trie.get(extra) == (1 if extra in entries else None)


def test_a_collapsed_history_hashes_like_a_whole_one() -> None:
    whole = folded = Trie(HISTORY)
    groups = []
    for seqno in range(1, 3 * history.GROUP + 200):
        ref = BlockRef(seqno * 1000, seqno, bytes(32), seqno.to_bytes(32, "big"))
        whole, folded = history.extend(whole, ref), history.extend(folded, ref)
        folded, group = history.collapse(folded, seqno)
        if group is not None:
            groups.append(group.number)
    assert groups == [1, 2]
    assert folded.cell().hash == whole.cell().hash
    assert folded.extra == (True, (3 * history.GROUP + 199) * 1000)


def test_plain_dictionaries_take_cells_or_their_digests() -> None:
    cell = Builder().uint(1, 8).cell()
    by_cell = Trie(PLAIN).set(0, cell, None)
    by_digest = Trie(PLAIN).set(0, Digest(cell.hash, cell.depth), None)
    assert by_cell.cell().hash == by_digest.cell().hash
    assert isinstance(cell, Cell)
