"""Rule expressions: CEL over one typed event, compiled once, evaluated without surprises. Pure.

The language is CEL (github.com/google/cel-spec) with its standard functions; the one variable is
`event`, a `go2asia.connect.v1.Event`. The runtime's habits that would give rewards away stay in
here: it returns run-time errors as values, and truthy ones; it raises when an expression exceeds
its budget of 10,000 iterations; it numbers lines from -1 when it gives up on nesting.
"""

import re
from dataclasses import dataclass

from cel_expr_python import cel
from go2asia.connect.v1 import checked_expression_pb2, events_pb2
from google.protobuf.any_pb2 import Any

from connect_svc import costs
from connect_svc.errors import InvalidExpression

BOOL = cel.Type.BOOL
INT = cel.Type.INT
STRING = cel.Type.STRING

MAX_USER_ID_CHARACTERS = 128
_MAX_DETAIL_CHARACTERS = 300

_ENVIRONMENT = cel.NewEnv(variables={"event": cel.Type(events_pb2.Event.DESCRIPTOR.full_name)})
_CHECKED_TYPE = "type.googleapis.com/cel.expr.CheckedExpr"
_PLACE = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[0-9]{1,18}")
_USER = re.compile(r"event\.(actor_user_id|primary_subject_user_id)")
_HINTS = {
    BOOL.name(): "a condition must be true or false",
    INT.name(): "an amount must be an integer; wrap numbers of the context in int(…)",
    STRING.name(): "a recipient must be a string",
}
# What the checker cannot know, because it comes out of the context. An amount never is: numbers
# of the context are doubles, so an amount that depends on them goes through int(…).
_DYNAMIC = {BOOL.name(), STRING.name()}


Checked = checked_expression_pb2.CheckedExpression
Node = checked_expression_pb2.ExpressionNode


class EvaluationError(Exception):
    """An expression has no usable value for this event; the message says why."""

    def __init__(self, detail: str) -> None:
        # Postgres text holds no NUL, and a message may quote a key as long as the context.
        super().__init__(detail.replace("\0", "")[:_MAX_DETAIL_CHARACTERS])


class Facts:
    """One event, made ready for any number of expressions."""

    def __init__(self, event: events_pb2.Event) -> None:
        self.event = event
        self._activation: cel.Activation | None = None

    def value(self, program: cel.Expression) -> cel.Value:
        """Evaluates a program to a value or an error value; raises when it takes too long."""
        if self._activation is None:  # copies the event, which most events need not
            self._activation = _ENVIRONMENT.Activation({"event": self.event})
        try:
            return program.eval(self._activation)
        except RuntimeError as error:
            raise EvaluationError(_first_line(error)) from error


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression, its text, and the field of the rule that holds it.

    `number` and `user_field` stand for it where it is a plain number or a user of the event, as
    most amounts and recipients are: CEL takes longer for these than for all else in a decision.
    `cost` is what it may take if it holds a loop; see `costs`.
    """

    field: str
    source: str
    program: cel.Expression
    number: int | None = None
    user_field: str = ""
    cost: int = 0

    def holds(self, facts: Facts) -> bool:
        """Whether a condition is true; raises `EvaluationError` when it is neither."""
        value = self._value(facts)
        plain = value.value()
        # Never truthiness: a non-empty string would do, and an error is one.
        if plain is True or plain is False:
            return plain
        raise self._unusable(value, BOOL)

    def amount(self, facts: Facts) -> int:
        """An amount above zero, within int64; raises `EvaluationError`."""
        value = self._typed(facts, INT) if self.number is None else self.number
        if not isinstance(value, int) or value <= 0:
            raise EvaluationError(f"{self.field} is {value}; an amount must be above zero")
        return value

    def user(self, facts: Facts) -> str:
        """A user id; raises `EvaluationError`."""
        if self.user_field:
            value = getattr(facts.event, self.user_field)
        else:
            value = self._typed(facts, STRING)
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_USER_ID_CHARACTERS:
            raise EvaluationError(
                f"{self.field} has {len(str(value))} characters; a user id has 1 to "
                f"{MAX_USER_ID_CHARACTERS}"
            )
        if _CONTROL.search(value):
            raise EvaluationError(f"{self.field} holds a control character; no user id does")
        return value

    def checked(self) -> Checked:
        """The expression as the checker left it.

        Always readable: CEL's parser stops at 32 levels, long before protobuf's limit of 100.
        """
        return Checked.FromString(Any.FromString(self.program.serialize()).value)

    def part(self, checked: Checked, node: Node, source: str) -> "Expression":
        """One node of `checked`, which is this expression, as an expression of its own."""
        alone = Checked()
        alone.CopyFrom(checked)
        alone.expr.CopyFrom(node)
        packed = Any(type_url=_CHECKED_TYPE, value=alone.SerializeToString())
        return Expression(self.field, source, _ENVIRONMENT.deserialize(packed.SerializeToString()))

    def _value(self, facts: Facts) -> cel.Value:
        try:
            return facts.value(self.program)
        except EvaluationError as error:
            raise EvaluationError(f"{self.field}: {error}") from error

    def _typed(self, facts: Facts, wanted: cel.Type) -> object:
        value = self._value(facts)
        if value.type() != wanted:
            raise self._unusable(value, wanted)
        found: object = value.value()
        return found

    def _unusable(self, value: cel.Value, wanted: cel.Type) -> EvaluationError:
        if value.type() in (cel.Type.ERROR, cel.Type.UNKNOWN):
            return EvaluationError(f"{self.field}: {value.value()}")
        return EvaluationError(f"{self.field} is {value.type().name()}; {_HINTS[wanted.name()]}")


def compile_expression(source: str, field: str, wanted: cel.Type) -> Expression:
    """Compiles `source`, the content of `field`; raises `InvalidExpression` with line and column.

    `wanted` is what it must yield: `BOOL`, `INT` or `STRING`.
    """
    try:
        program = _ENVIRONMENT.compile(source)
    except RuntimeError as error:
        raise _invalid(error, field) from error
    found = program.return_type()
    if found != wanted and not (found == cel.Type.DYN and wanted.name() in _DYNAMIC):
        wrong = f"it yields {found.name()}; {_HINTS[wanted.name()]}"
        raise InvalidExpression(field=field, line=1, column=1, wrong=wrong)
    expression = Expression(field, source, program)
    cost = costs.worst_case(expression.checked().expr) if costs.loops(source) else 0
    if cost > costs.MAX_COST:
        wrong = (
            f"its loops may take {cost >> 20:,} MB of work on a large event, "
            f"and {costs.MAX_COST >> 20} MB is the most; loop over less, or do less in the loop"
        )
        raise InvalidExpression(field=field, line=1, column=1, wrong=wrong)
    number = int(source) if wanted == INT and _NUMBER.fullmatch(source) else None
    user = _USER.fullmatch(source) if wanted == STRING else None
    return Expression(field, source, program, number, user[1] if user else "", cost)


def _invalid(error: RuntimeError, field: str) -> InvalidExpression:
    place = _PLACE.search(str(error))
    if place is None:
        return InvalidExpression(field=field, line=1, column=1, wrong=_first_line(error))
    line, column, wrong = place.groups()
    return InvalidExpression(
        field=field, line=max(int(line), 1), column=max(int(column), 1), wrong=wrong.rstrip(".")
    )


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
