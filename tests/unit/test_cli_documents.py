"""People's files: what is right is read, what is wrong is named by file, line and field."""

from pathlib import Path

import pytest
from go2asia.connect.v1.rules_pb2 import Rule
from go2asia.nft.v1.catalog_pb2 import NftType

from cli.documents import read_catalogue, read_events
from connect_svc.rules import compile_rule
from mesh.errors import InvalidArgument

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = """
rules:
  - rule_id: ok
    event_type: a.b
    actions:
      - key: p
        credit_points: {unit: G2A, amount: "1"}
"""


def read(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    documents, mistakes = read_catalogue(file, "rules", Rule)
    found = [str(mistake).removeprefix(f"{file}:") for mistake in mistakes]
    return [document.message.rule_id for document in documents], found


def test_the_examples_are_sound() -> None:
    rules, wrong_rules = read_catalogue(EXAMPLES / "rules.yaml", "rules", Rule)
    badges, wrong_badges = read_catalogue(EXAMPLES / "badges.yaml", "badges", NftType)
    events, wrong_lines = read_events(EXAMPLES / "events.jsonl")
    assert (wrong_rules, wrong_badges, wrong_lines) == ([], [], [])
    assert len(rules) == 8
    assert len(badges) == 5
    assert len(events) >= 300
    assert len({event.message.event_type for event in events}) == 6
    assert len({event.message.actor_user_id for event in events} - {""}) == 40


def test_the_campaign_is_sound() -> None:
    rules, mistakes = read_catalogue(EXAMPLES / "campaign.yaml", "rules", Rule)
    assert mistakes == []
    for document in rules:
        compile_rule(document.message)
    double, welcome, bonus = (document.message for document in rules)
    assert double.stacking.stop_after
    assert double.budgets[1].amount.value == 500_000
    assert welcome.caps[0].count == 3
    assert [variant.weight for variant in bonus.variants] == [50, 25, 25]


def test_a_good_rule_is_read_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(GOOD)
    [document], mistakes = read_catalogue(file, "rules", Rule)
    assert mistakes == []
    assert document.line == 3
    assert document.message.actions[0].credit_points.unit == "G2A"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            GOOD.replace(
                "    actions:", "    caps: [{window: WINDOW_DAY, count: -1}]\n    actions:"
            ),
            "5: rules[0].caps[0].count: must be greater than 0",
        ),
        (
            GOOD.replace("    actions:", "    first_date: tomorrow\n    actions:"),
            "5: rules[0].first_date: ",
        ),
        (
            GOOD.replace("event_type: a.b", "event_type: a.b\n    priority: 0b_"),
            "5: not YAML: '0b_' cannot be read as int; quote it if it is text",
        ),
        (GOOD.replace("a.b", "!!bool maybe"), "4: not YAML: 'maybe' cannot be read as bool"),
        (GOOD.replace("a.b", "!foo a.b"), "4: not YAML: could not determine a constructor"),
        (GOOD.replace("key: p", "? [p]\n        : p"), "6: not YAML: while constructing a mapping"),
        (GOOD.replace("a.b", "a\a.b"), "4: not YAML: the character U+0007 has no place in it"),
        ("rules: " + "[" * 10_000, "1: not YAML: maximum recursion depth"),
        ("rules: &rules [*rules]", "1: not YAML: maximum recursion depth"),
        ("", "1: rules: the file needs a top-level list `rules:`"),
        (
            GOOD.replace("event_type: a.b", "event_typ: a.b"),
            "4: rules[0].event_typ: unknown field `event_typ`",
        ),
        (
            GOOD.replace("unit: G2A", "unit: g"),
            "7: rules[0].actions[0].credit_points.unit: does not match regex pattern",
        ),
        (
            GOOD.replace("event_type: a.b", "event_type: a.b\n    priority: high"),
            "5: rules[0].priority: invalid literal",
        ),
        (
            GOOD.replace("event_type: a.b", "event_type: a.b\n    event_type: c.d"),
            "5: rules.0.event_type: this key stands here twice",
        ),
        ("rules: {}", "1: rules: the file needs a top-level list `rules:`"),
        ("rules: [", "1: not YAML"),
        ("rules: [3]", "1: rules[0]"),
    ],
)
def test_a_mistake_has_its_place(tmp_path: Path, broken: str, said: str) -> None:
    read_rules, mistakes = read(tmp_path, broken)
    assert read_rules == []
    assert any(mistake.startswith(said) for mistake in mistakes), mistakes


@pytest.mark.parametrize("date", ["2025-06-01", "2025-06-31", '"2025-06-01"'])
def test_a_date_needs_no_quotes(tmp_path: Path, date: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(GOOD.replace("a.b", f"a.b\n    first_date: {date}"))
    [document], mistakes = read_catalogue(file, "rules", Rule)
    assert mistakes == []
    assert document.message.first_date == date.strip('"'), "Connect knows the calendar"


def test_one_mistake_does_not_hide_the_other_rules(tmp_path: Path) -> None:
    second = GOOD.split("rules:\n")[1].replace("rule_id: ok", "rule_id: Wrong")
    read_rules, mistakes = read(tmp_path, GOOD + second)
    assert read_rules == ["ok"]
    assert len(mistakes) == 1


def test_a_broken_line_of_events_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    good = '{"source": "quest", "external_id": "1"}'
    file.write_text(f'{good}\n{{broken\n\n{{"occurred_time": "yesterday"}}\n{good}\n')
    documents, mistakes = read_events(file)
    assert [document.line for document in documents] == [1, 5]
    assert [mistake.line for mistake in mistakes] == [2, 4]
    assert mistakes[1].field == "occurred_time"


def test_lines_of_events_end_where_json_lines_end(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    event = '{"source": "quest", "external_id": "1", "context": {"note": "a\u2028b\x85c"}}'
    file.write_text(f"\ufeff{event}\n{event}\r\n{event}", encoding="utf-8", newline="")
    documents, mistakes = read_events(file)
    assert mistakes == []
    assert [document.line for document in documents] == [1, 2, 3]
    assert documents[2].message.context["note"] == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "2: no JSON object"),
        ("null", "2: no JSON object"),
        ("{" * 100_000, "2: not JSON: "),
        ('{"source": "quest", "source": "quest"}', "2: "),
        ('{"context": {"text": "' + "x" * 40_000 + '"}}', "2: context: the event has 40"),
        ('{"context": {"text": "\\ud800"}}', "2: context"),
        ('{"event_typ": "a.b"}', "2: event_typ: unknown field"),
    ],
)
def test_a_line_that_is_no_event_is_told(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f"{{}}\n{line}\n{{}}")
    documents, [mistake] = read_events(file)
    assert [document.line for document in documents] == [1, 3]
    assert str(mistake).startswith(f"{file}:{said}")
    assert "Traceback" not in str(mistake)


@pytest.mark.parametrize(
    ("field", "message", "told"),
    [
        ("rule.condition", "rule.condition, line 1: no; correct it.", "5: condition, line 1: no; "),
        (
            "rule.event_type",
            "Correct: rule.event_type: no; rule.priority: no.",
            "4: Correct: event",
        ),
        ("rule.event_type", "There is no such type.", "4: event_type: There is no such type."),
        ("rule", "The rule contradicts itself.", "3: The rule contradicts itself."),
        ("rule_id", "There is no rule ok.", "3: rule_id: There is no rule ok."),
    ],
)
def test_a_refusal_names_the_field_of_the_file_once(
    tmp_path: Path, field: str, message: str, told: str
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(GOOD.replace("a.b", "a.b\n    condition: 'true'"))
    [document], _ = read_catalogue(file, "rules", Rule)
    mistake = document.refusal(InvalidArgument(message, field=field), "rule")
    assert str(mistake).startswith(f"{file}:{told}")
    assert "rule." not in str(mistake).removeprefix(str(file))
