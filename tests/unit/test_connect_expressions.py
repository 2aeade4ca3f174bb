"""CEL without surprises: what would give a reward by mistake gives an error instead."""

import time
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2

from connect_svc.errors import InvalidExpression
from connect_svc.expressions import (
    BOOL,
    INT,
    STRING,
    EvaluationError,
    Expression,
    Facts,
    compile_expression,
)


def facts(**context: Any) -> Facts:
    event = events_pb2.Event(event_type="quest.completed", actor_user_id="ada")
    event.context.update(context)
    event.occurred_time.FromJsonString("2025-06-07T12:00:00Z")
    return Facts(event)


def condition(source: str) -> Expression:
    return compile_expression(source, "rule.condition", BOOL)


def amount(source: str) -> Expression:
    return compile_expression(source, "amount", INT)


def recipient(source: str) -> Expression:
    return compile_expression(source, "recipient", STRING)


@pytest.mark.parametrize(
    "source",
    [
        "event.context.difficulty == 'hard'",
        "event.context.flag",
        "event.context.count > 3 && event.context.count == 5.0",
        "has(event.context.difficulty) && !has(event.context.nothing)",
        "event.context.tags.exists(tag, tag == 'vip')",
        "event.occurred_time >= timestamp('2025-06-07T00:00:00Z')",
        "event.actor_user_id == 'ada' && event.primary_subject_user_id == ''",
        "event.context.nothing == 1.0 || true",  # CEL's own rule for errors beside ||
    ],
)
def test_conditions_that_hold(source: str) -> None:
    known = facts(difficulty="hard", flag=True, count=5, tags=["new", "vip"])
    assert condition(source).holds(known) is True


@pytest.mark.parametrize(
    ("source", "because"),
    [
        ("event.context.nothing == 'x'", "Key not found in map"),
        ("has(event.context.nothing.deeper)", "Key not found in map"),
        ("event.context.text", "is STRING; a condition must be true or false"),
        ("event.context.count", "is DOUBLE; a condition must be true or false"),
        ("event.context.empty", "is NULL; a condition must be true or false"),
        ("1 / (event.actor_user_id == 'ada' ? 0 : 1) == 1", "divide by zero"),
        ("event.context.text > 3", "No matching overloads"),
        ("event.context.text.matches('(')", "missing"),
    ],
)
def test_an_error_is_never_true(source: str, because: str) -> None:
    known = facts(text="true", count=1, empty=None)
    with pytest.raises(EvaluationError, match=f"^rule.condition:? .*{because}"):
        condition(source).holds(known)


def test_an_expression_that_runs_too_long_is_stopped() -> None:
    known = facts(list=list(range(256)))
    nested = "event.context.list.all(a, event.context.list.all(b, a + b >= 0.0))"
    with pytest.raises(EvaluationError, match="Iteration budget exceeded"):
        condition(nested).holds(known)


def test_the_worst_that_the_bounds_allow_is_bearable() -> None:
    known = facts(text="ab" * 7_000, list=[1] * 250)
    slow = condition("event.context.list.all(a, !event.context.text.matches('(a|b)*c$'))")
    started = time.process_time()
    assert slow.holds(known)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("150", 150),
        ("int(event.context.cents) / 100", 59),
        ("event.context.cents >= 5000.0 ? 300 : 100", 300),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_amounts(source: str, value: int) -> None:
    assert amount(source).amount(facts(cents=5999)) == value


@pytest.mark.parametrize(
    ("source", "because"),
    [
        ("0", "amount is 0; an amount must be above zero"),
        ("-5", "amount is -5"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("int(event.context.huge)", "out of int64 range"),
        ("int(event.context.word)", "amount: "),
        ("int(event.context.nothing)", "Key not found"),
    ],
)
def test_an_amount_that_is_none(source: str, because: str) -> None:
    with pytest.raises(EvaluationError, match=because):
        amount(source).amount(facts(huge=1e30, word="many"))


@pytest.mark.parametrize(
    ("source", "because"),
    [
        ("event.primary_subject_user_id", "has 0 characters"),
        ("event.context.long", "has 129 characters"),
        ("event.context.count", "is DOUBLE; a recipient must be a string"),
        (r"'a\u0000b'", "control character"),
        (r"event.context.word + '\u0085'", "control character"),
    ],
)
def test_a_recipient_that_is_none(source: str, because: str) -> None:
    with pytest.raises(EvaluationError, match=because):
        recipient(source).user(facts(long="x" * 129, count=1, word="bob"))


def test_a_recipient_may_come_out_of_the_context() -> None:
    assert recipient("event.context.friend").user(facts(friend="bob")) == "bob"


@pytest.mark.parametrize(
    ("source", "wanted", "line", "column", "says"),
    [
        ("event.contxt.x == 1", BOOL, 1, 6, "undefined field 'contxt'"),
        ("true &&\n  event.zzz", BOOL, 2, 8, "undefined field 'zzz'"),
        ("1 +", INT, 1, 4, "Syntax error"),
        ("who == 'ada'", BOOL, 1, 1, "undeclared reference to 'who'"),
        ("'yes'", BOOL, 1, 1, "it yields STRING; a condition must be true or false"),
        ("1.5", INT, 1, 1, "it yields DOUBLE; an amount must be an integer"),
        ("1u", INT, 1, 1, "it yields UINT"),
        ("event.context.points", INT, 1, 1, r"wrap numbers of the context in int"),
        ("event.occurred_time", STRING, 1, 1, "a recipient must be a string"),
        ("(" * 500 + "1" + ")" * 500, INT, 1, 1, "recursion"),
    ],
)
def test_a_mistake_is_found_before_it_matters(
    source: str, wanted: Any, line: int, column: int, says: str
) -> None:
    with pytest.raises(InvalidExpression, match=says) as wrong:
        compile_expression(source, "rule.condition", wanted)
    assert wrong.value.field == "rule.condition"
    assert wrong.value.metadata == {"line": str(line), "column": str(column)}


def test_details_can_be_stored() -> None:
    known = facts(key="k" * 5_000)
    with pytest.raises(EvaluationError) as failed:
        condition("event.context[event.context.key] == 1.0").holds(known)
    assert len(str(failed.value)) <= 300
    assert "\0" not in str(EvaluationError("a\0b"))
