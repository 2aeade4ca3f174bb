"""What others wrote is shown as it stands: no markup, no terminal's commands."""

import pytest
from go2asia.connect.v1.reward_actions_pb2 import RewardAction, SendTonCommand
from rich.table import Table

from cli.actions import action_table
from cli.session import output


@pytest.mark.parametrize("text", ["[/x]", "[red]hot[/red]", "\\[a]", ":fire: [b]"])
def test_nothing_is_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    output().print(table)
    output().print(text)
    assert capsys.readouterr().out.count(text) == 4


def test_nothing_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output().print("clear \x1b[2J bell \x07\n\ttab")
    assert capsys.readouterr().out == "clear \ufffd[2J bell \ufffd\n        tab\n"


def test_a_comment_of_ton_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    action = RewardAction(send_ton=SendTonCommand(amount=1, comment="thanks [/x]"))
    output().print(action_table([action]))
    assert "send_ton 1 thanks [/x]" in capsys.readouterr().out
