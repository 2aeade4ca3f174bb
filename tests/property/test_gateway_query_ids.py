"""Query ids: never the forbidden bit, never twice before all were used, never out of range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain_gateway import query_id
from chain_gateway.query_id import CAPACITY, from_sequence, operator_ids, pack, unpack

sequences = st.integers(min_value=0, max_value=5 * CAPACITY)


@given(sequences)
def test_every_id_is_one_the_wallet_accepts(sequence: int) -> None:
    query = from_sequence(sequence)
    shift, bit = unpack(query)
    assert 0 <= query < 2**23
    assert shift < query_id.OPERATOR_SHIFT
    assert bit <= 1022
    assert query not in operator_ids()


@given(sequences, st.integers(min_value=1, max_value=CAPACITY - 1))
def test_no_two_within_one_round_are_equal(sequence: int, distance: int) -> None:
    assert from_sequence(sequence) != from_sequence(sequence + distance)
    assert from_sequence(sequence) == from_sequence(sequence + CAPACITY)


def test_a_whole_round_uses_each_id_once() -> None:
    assert len({from_sequence(number) for number in range(0, CAPACITY, 61)}) == len(
        range(0, CAPACITY, 61)
    )
    assert CAPACITY + len(operator_ids()) == 8_192 * 1_023


@given(st.integers(0, 8191), st.integers(0, 1022))
def test_packing_is_reversible(shift: int, bit: int) -> None:
    assert unpack(pack(shift, bit)) == (shift, bit)


@pytest.mark.parametrize(("shift", "bit"), [(0, 1023), (8192, 0), (-1, 0), (0, -1)])
def test_what_the_wallet_refuses_cannot_be_made(shift: int, bit: int) -> None:
    with pytest.raises(ValueError, match="shift"):
        pack(shift, bit)


@given(st.integers(0, 2**40), st.integers(10, 2**22 - 1), st.integers(0, 10))
def test_an_id_rests_for_at_least_two_timeouts_after_its_message_could_run(
    created_at: int, timeout: int, extra: int
) -> None:
    last_run = created_at + timeout
    assert not query_id.reusable(created_at, timeout, last_run + 2 * timeout)
    assert query_id.reusable(created_at, timeout, last_run + 3 * timeout + 1 + extra)
