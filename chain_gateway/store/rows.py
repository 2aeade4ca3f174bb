"""Operations as rows and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from chain_gateway.operations import (
    ON_CHAIN,
    Content,
    Kind,
    Mint,
    Operation,
    Order,
    Placement,
    Revocation,
    Standard,
    Standing,
    State,
    Task,
    Transfer,
    Update,
)
from mesh.idempotency import Key

# What is set when an operation begins, with the types of Postgres.
NEW_COLUMNS = {
    "operation_id": "uuid",
    "request_id": "text",
    "kind": "smallint",
    "mint_id": "uuid",
    "user_id": "text",
    "content": "jsonb",
    "standard": "smallint",
    "item_mint_id": "uuid",
    "item_version": "bigint",
    "amount": "bigint",
    "comment": "text",
    "state": "smallint",
    "collection_address": "text",
    "item_index": "bigint",
    "item_address": "text",
    "owner_address": "text",
    "failure_reason": "text",
}

# In the order of the parameters of `standing`.
STANDING_COLUMNS = (
    "operation_id", "kind", "mint_id", "state", "version", "collection_address", "item_index",
    "item_address", "owner_address", "failure_reason", "retryable",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrderedItem:
    """A mint that is to be changed, and the version that its next change gets.

    `placement` and `owner` are None until they are frozen.
    """

    user_id: str
    standard: Standard
    state: State
    placement: Placement | None
    owner: str | None
    next_version: int


@dataclass(frozen=True, slots=True)
class Admission:
    """An order that is taken, under which key, as which operation, and how it begins.

    `item` is what a change is made of.
    """

    key: Key
    operation_id: str
    order: Order
    state: State
    item: OrderedItem | None = None
    failure_reason: str = ""

    @property
    def called_off(self) -> bool:
        """Whether it was called off before it came: then its key is remembered already."""
        return self.state is State.CANCELLED


def new_row(admission: Admission) -> dict[str, Any]:
    """The columns that an admission sets; those left out are null."""
    order, item = admission.order, admission.item
    row: dict[str, Any] = {
        "operation_id": admission.operation_id,
        "request_id": order.request_id,
        "kind": int(order.kind),
        "mint_id": order.mint_id,
        "user_id": order.user_id,
        "state": int(admission.state),
        "failure_reason": admission.failure_reason,
    }
    if item is not None and item.placement is not None and item.state in ON_CHAIN:
        row |= {
            "collection_address": item.placement.collection,
            "item_index": item.placement.index,
            "item_address": item.placement.address,
            "owner_address": item.owner,
        }
    return row | _task_columns(order.task) | ({"item_version": item.next_version} if item else {})


def _task_columns(task: Task) -> dict[str, Any]:
    match task:
        case Mint(content, standard):
            return {"content": Jsonb(_content_columns(content)), "standard": int(standard)}
        case Transfer(amount, comment):
            return {"amount": amount, "comment": comment}
        case Update(item_mint_id, content):
            return {"content": Jsonb(_content_columns(content)), "item_mint_id": item_mint_id}
        case Revocation(item_mint_id):
            return {"item_mint_id": item_mint_id}


def stored_task(row: Mapping[Any, Any]) -> Task:
    """The task as the columns of `operations` hold it."""
    match Kind(row["kind"]):
        case Kind.MINT:
            return Mint(_stored_content(row["content"]), Standard(row["standard"]))
        case Kind.TRANSFER:
            return Transfer(row["amount"], row["comment"])
        case Kind.UPDATE_CONTENT:
            return Update(str(row["item_mint_id"]), _stored_content(row["content"]))
        case Kind.REVOKE:
            return Revocation(str(row["item_mint_id"]))


def _content_columns(content: Content) -> dict[str, Any]:
    return {
        "name": content.name,
        "description": content.description,
        "image": content.image,
        "attributes": content.attributes,
        "uri": content.uri,
    }


def _stored_content(column: Mapping[str, Any]) -> Content:
    attributes = tuple((kind, value) for kind, value in column["attributes"])
    return Content(
        column["name"],
        column["description"],
        column["image"],
        attributes,
        column.get("uri", ""),  # those taken before there was one have none
    )


def operation(row: Mapping[Any, Any]) -> Operation:
    """A whole row."""
    return Operation(
        order=Order(row["request_id"], row["mint_id"], row["user_id"], stored_task(row)),
        standing=standing(*(row[column] for column in STANDING_COLUMNS)),
        query_id=row["query_id"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def standing(
    operation_id: object,
    kind: int,
    mint_id: object | None,
    state: int,
    version: int,
    collection: str,
    index: int,
    address: str | None,
    owner: str | None,
    failure_reason: str,
    retryable: bool,
) -> Standing:
    """Where an operation stands, from `STANDING_COLUMNS`."""
    return Standing(
        operation_id=str(operation_id),
        kind=Kind(kind),
        mint_id=None if mint_id is None else str(mint_id),
        state=State(state),
        version=version,
        placement=placement(collection, index, address),
        owner=owner,
        failure_reason=failure_reason,
        retryable=retryable,
    )


def placement(collection: str, index: int, address: str | None) -> Placement | None:
    """Where an item is; None until that is frozen."""
    return None if address is None else Placement(collection, index, address)
