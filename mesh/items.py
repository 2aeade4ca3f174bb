"""The items of a batch RPC: each succeeds or fails by itself.

    batch = Batch("items", request.items, prepare)
    results = await batch.answers(desk.book_many)

Those that are sound are worked together; the results come in the order of the items.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from go2asia.mesh.v1.item_error_pb2 import ItemError
from google.protobuf.message import Message

from mesh import status, telemetry
from mesh.errors import Kind, MeshError

Item = TypeVar("Item", bound=Message)
Ready = TypeVar("Ready")
Result = TypeVar("Result")

_log = telemetry.logger("rpc.items")


class Batch(Generic[Item, Ready]):
    """The items in the request's field of that name, prepared one by one.

    `prepare` checks an item (`mesh.validation.check`) and turns it into what is to be worked, or
    raises the `MeshError` that refuses it. Errors name fields within their item; senders are told
    which item that was.
    """

    def __init__(self, field: str, items: Sequence[Item], prepare: Callable[[Item], Ready]) -> None:
        self._field = field
        self._items = items
        self._prepared = [_prepare(item, prepare) for item in items]

    @property
    def first_refused(self) -> int | None:
        """The place of the first item that is not worth working; None if all are."""
        places = (n for n, one in enumerate(self._prepared) if isinstance(one, MeshError))
        return next(places, None)

    async def answers(
        self, work: Callable[[Sequence[Ready]], Awaitable[Sequence[Result | Exception]]]
    ) -> list[Result | ItemError]:
        """Hands all sound items to `work` together; what it made of each, or why there is nothing.

        A defect of ours is logged whole and told blandly.
        """
        sound = [one for one in self._prepared if not isinstance(one, MeshError)]
        results = iter(await work(sound))
        return [
            self._told(place, one if isinstance(one, MeshError) else next(results))
            for place, one in enumerate(self._prepared)
        ]

    def _told(self, place: int, result: Result | Exception) -> Result | ItemError:
        if not isinstance(result, Exception):
            return result
        path = f"{self._field}[{place}]"
        error = status.told(result, self._items[place])
        if error.kind is Kind.INTERNAL:
            _log.error("item_broke", item=path, exc_info=result)
        return status.to_item_error(error, path)


def _prepare(item: Item, prepare: Callable[[Item], Ready]) -> Ready | MeshError:
    try:
        return prepare(item)
    except MeshError as error:
        return error
