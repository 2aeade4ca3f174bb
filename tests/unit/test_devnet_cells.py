"""The devnet's own cells agree with pytoniq's, bit for bit."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell as TheirCell
from pytoniq_core import begin_cell

from ton_devnet.cells import (
    BocError,
    Builder,
    Cell,
    Reader,
    from_boc,
    merkle_proof,
    merkle_update,
    pruned,
    to_boc,
)


def random_tree(rng: random.Random, depth: int) -> Cell:
    builder = Builder()
    size = rng.randrange(0, 1024)
    builder.uint(rng.getrandbits(size) if size else 0, size)
    for _ in range(rng.randrange(0, 5) if depth else 0):
        builder.ref(random_tree(rng, depth - 1))
    return builder.cell()


@given(st.integers())
@settings(max_examples=40, deadline=None)
def test_hash_and_boc_are_what_pytoniq_computes(seed: int) -> None:
    mine = random_tree(random.Random(seed), 3)
    theirs = TheirCell.one_from_boc(to_boc(mine))
    assert theirs.hash == mine.hash
    assert theirs.get_depth(0) == mine.depth
    assert from_boc(theirs.to_boc())[0].hash == mine.hash
    assert from_boc(theirs.to_boc(has_idx=True, hash_crc32=True))[0].hash == mine.hash


@given(st.integers())
@settings(max_examples=40, deadline=None)
def test_pruned_trees_prove_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    whole = Builder().ref(random_tree(rng, 2)).ref(random_tree(rng, 2)).uint(5, 8).cell()
    partial = whole.with_refs([pruned(whole.refs[0]), whole.refs[1]])
    theirs = TheirCell.one_from_boc(to_boc(merkle_proof(partial)))
    assert theirs.refs[0].get_hash(0) == whole.hash
    assert theirs.hash == merkle_proof(partial).hash
    update = merkle_update(whole, whole.child(0))
    assert TheirCell.one_from_boc(to_boc(update)).hash == update.hash


def test_one_bag_holds_several_roots_and_shares_cells() -> None:
    shared = Builder().uint(7, 32).cell()
    one, two = Builder().ref(shared).uint(1, 1).cell(), Builder().ref(shared).cell()
    bag = to_boc(one, two, shared)
    assert [cell.hash for cell in TheirCell.from_boc(bag)] == [one.hash, two.hash, shared.hash]
    assert [cell.hash for cell in from_boc(bag)] == [one.hash, two.hash, shared.hash]


@pytest.mark.parametrize(
    "damage",
    [lambda boc: boc[1:], lambda boc: boc[:-1], lambda boc: b"", lambda boc: boc[:5]],
    ids=["no magic", "cut", "empty", "head only"],
)
def test_damaged_bags_are_refused(damage: object) -> None:
    boc = to_boc(Builder().uint(7, 32).ref(Builder().uint(1, 9).cell()).cell())
    with pytest.raises(BocError):
        from_boc(damage(boc))  # type: ignore[operator]


def test_reader_reads_what_pytoniq_wrote() -> None:
    inner = begin_cell().store_string("inside").end_cell()
    theirs = begin_cell().store_uint(5, 7).store_coins(10**9).store_int(-2, 9)
    theirs = theirs.store_bytes(b"abc").store_maybe_ref(None).store_maybe_ref(inner).end_cell()
    reader = Reader(from_boc(theirs.to_boc())[0])
    assert (reader.uint(7), reader.coins(), reader.uint(9)) == (5, 10**9, 2**9 - 2)
    assert (reader.raw(3), reader.maybe_ref()) == (b"abc", None)
    ref = reader.maybe_ref()
    assert ref is not None
    assert ref.hash == inner.hash
    with pytest.raises(BocError, match="too early"):
        reader.uint(1)
