"""Items of a batch fail each by itself, and their senders are told which and why."""

from collections.abc import Sequence

import pytest
from go2asia.mesh.v1.item_error_pb2 import ItemError
from go2asia.points.v1 import points_pb2
from structlog.testing import capture_logs

from mesh import telemetry, validation
from mesh.errors import NotFound, Unstorable
from mesh.items import Batch

Asked = points_pb2.GetBalanceRequest


def prepare(item: Asked) -> str:
    validation.check(item)
    return item.user_id


def batch(*user_ids: str) -> Batch[Asked, str]:
    return Batch("items", [Asked(user_id=user_id, unit="G2A") for user_id in user_ids], prepare)


async def greet(user_ids: Sequence[str]) -> list[str | Exception]:
    results: dict[str, Exception] = {
        "nobody": NotFound(field="user_id"),
        "defect": ValueError("secret detail"),
        "a\0": Unstorable(),
        "innocent": Unstorable(),
    }
    return [results.get(user_id, f"hello {user_id}") for user_id in user_ids]


def refusals(answers: Sequence[str | ItemError]) -> list[tuple[str, str]]:
    return [(each.reason, each.field) for each in answers if isinstance(each, ItemError)]


async def test_each_item_has_its_answer_at_its_place() -> None:
    answers = await batch("ada", "", "nobody", "bea").answers(greet)
    assert (answers[0], answers[3]) == ("hello ada", "hello bea")
    assert refusals(answers) == [
        ("INVALID_ARGUMENT", "items[1].user_id"),
        ("NOT_FOUND", "items[2].user_id"),
    ]


async def test_a_defect_is_logged_whole_and_told_blandly() -> None:
    telemetry.bind_request_id("request-7")
    with capture_logs() as lines:
        [error] = await batch("defect").answers(greet)
    assert isinstance(error, ItemError)
    assert (error.reason, error.metadata["request_id"]) == ("INTERNAL", "request-7")
    assert "secret detail" not in error.message
    [line] = lines
    assert (line["item"], str(line["exc_info"])) == ("items[0]", "secret detail")


async def test_a_text_that_cannot_be_stored_is_its_senders_mistake_only() -> None:
    answers = await batch("ada", "a\0", "innocent").answers(greet)
    assert refusals(answers) == [("INVALID_ARGUMENT", "items[1].user_id"), ("INTERNAL", "")]


@pytest.mark.parametrize(("user_ids", "first"), [(["ada"], None), ([], None), (["ada", "", ""], 1)])
def test_the_first_refused_is_known_before_any_is_worked(
    user_ids: list[str], first: int | None
) -> None:
    assert batch(*user_ids).first_refused == first
