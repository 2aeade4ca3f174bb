"""What items and the wallet's transactions show of operations."""

from dataclasses import replace

import pytest
from pytoniq_core.boc.cell import Cell

from chain_gateway.cells import EMPTY, build, internal, parse
from chain_gateway.effects import Awaited, Effect, of_item
from chain_gateway.executions import Execution, Parcel, carried, execution, missing
from chain_gateway.items import ITEM_CODE_HASHES
from chain_gateway.operations import FailureReason, Kind
from chain_gateway.transactions import Message, Transaction, read_message
from chain_gateway.wallet import ActionList, HighloadWallet, MintingKey

MINT = "0192f7a2-0000-7000-8000-000000000001"
RIVAL = "0192f7a2-0000-7000-8000-000000000002"
SOMEBODY = "0:" + "ab" * 32
OUR_CODE = next(iter(ITEM_CODE_HASHES))
WALLET = HighloadWallet(MintingKey(b"\x01" * 32), 3600)


def data(
    mint_id: str = MINT, *, owner: str | None = SOMEBODY, version: int = 0, revoked_at: int = 0
) -> Cell:
    cell = build().store_uint(7, 64).store_address(parse(SOMEBODY))
    cell.store_address(None if owner is None else parse(owner))
    cell.store_uint(int(mint_id.replace("-", ""), 16), 128).store_uint(version, 64)
    built: Cell = cell.store_uint(revoked_at, 64).store_ref(EMPTY).end_cell()
    return built


def awaited(kind: Kind, version: int | None = None) -> Awaited:
    return Awaited(1, "o", kind, SOMEBODY, MINT if kind is Kind.MINT else RIVAL, version)


BARE = build().store_uint(7, 64).store_address(parse(SOMEBODY)).end_cell()


@pytest.mark.parametrize(
    ("operation", "stored", "expected"),
    [
        (awaited(Kind.MINT), None, Effect.ABSENT),
        (awaited(Kind.MINT), BARE, Effect.ABSENT),
        (awaited(Kind.MINT), data(), Effect.THERE),
        # Whatever became of it since: it is our mint that made it.
        (awaited(Kind.MINT), data(version=9, revoked_at=5, owner=None), Effect.THERE),
        (awaited(Kind.MINT), data(RIVAL), Effect.INDEX_TAKEN),
        (awaited(Kind.UPDATE_CONTENT, 5), data(version=4), Effect.ABSENT),
        (awaited(Kind.UPDATE_CONTENT, 5), data(version=5), Effect.THERE),
        (awaited(Kind.UPDATE_CONTENT, 5), data(version=6), Effect.THERE),
        (awaited(Kind.UPDATE_CONTENT, 5), data(owner=None), Effect.ITEM_DESTROYED),
        (awaited(Kind.UPDATE_CONTENT, 5), data(version=5, owner=None), Effect.THERE),
        (awaited(Kind.REVOKE), data(), Effect.ABSENT),
        (awaited(Kind.REVOKE), data(revoked_at=1), Effect.THERE),
        (awaited(Kind.REVOKE), data(owner=None), Effect.ITEM_DESTROYED),
    ],
)
def test_what_an_item_shows(operation: Awaited, stored: Cell | None, expected: Effect) -> None:
    assert of_item(operation, None if stored is None else OUR_CODE, stored) is expected


def test_of_other_code_nothing_is_believed() -> None:
    assert of_item(awaited(Kind.MINT), b"\x00" * 32, data()) is Effect.CODE_MISMATCH


def message(source: str | None, to: str, lt: int, value: int = 0, body: Cell = EMPTY) -> Message:
    return Message(
        source=source, to=to, value=value, fee=0, created_lt=lt, bounced=False, body=body
    )


def transaction(lt: int, incoming: Message, *outgoing: Message) -> Transaction:
    return Transaction(lt, b"", lt, 0, False, 0, incoming, outgoing)


PAYMENTS = [internal(SOMEBODY, value, EMPTY, bounce=False) for value in (5, 5, 9)]
PARCELS = [Parcel(SOMEBODY, value, bytes(EMPTY.hash)) for value in (5, 5, 9)]


def external(query: int, created_at: int) -> tuple[bytes, Message]:
    actions = ActionList()
    for payment in PAYMENTS:
        actions.add(payment)
    boc = WALLET.external(actions, query=query, created_at=created_at)
    return boc, message(None, WALLET.address, 0, body=read_message(Cell.one_from_boc(boc)).body)


def test_a_message_tells_what_it_carries_in_its_order() -> None:
    boc, _ = external(3, 1_000)
    assert carried(boc) == PARCELS


def history(sent: int) -> list[Transaction]:
    """The wallet ran query 3 of time 1,000, and of its list sent so many; newest first."""
    _, order = external(3, 1_000)
    to_self = message(WALLET.address, WALLET.address, 11)
    went = [message(WALLET.address, SOMEBODY, 20 + n, p.value) for n, p in enumerate(PARCELS)]
    return [transaction(20, to_self, *went[:sent]), transaction(10, order, to_self)]


def test_what_the_wallet_sent_is_what_its_transaction_says() -> None:
    ran = execution(history(3), WALLET.address, 3, 1_000)
    assert ran is not None
    assert missing(ran, PARCELS) == ["", "", ""]
    assert execution(history(3), WALLET.address, 4, 1_000) is None
    assert execution(history(3), WALLET.address, 3, 999) is None, "another message of that query id"


def test_what_it_left_out_is_told_from_what_looks_the_same() -> None:
    ran = execution(history(1), WALLET.address, 3, 1_000)
    assert ran is not None
    assert missing(ran, PARCELS) == ["", FailureReason.LOW_BALANCE, FailureReason.LOW_BALANCE]


def test_a_list_on_its_way_says_nothing_yet() -> None:
    ran = execution(history(0)[1:], WALLET.address, 3, 1_000)
    assert ran == Execution(10, None, fees=0)


def test_a_query_id_alone_means_nothing() -> None:
    """Nothing left for the list, or the list arrived and its transaction was aborted."""
    arrived, run = history(3)
    kept = [replace(run, outgoing=())]
    aborted = [replace(arrived, aborted=True, outgoing=()), run]
    for story in (kept, aborted):
        ran = execution(story, WALLET.address, 3, 1_000)
        assert ran is not None
        assert missing(ran, PARCELS) == [FailureReason.NOTHING_SENT] * 3
