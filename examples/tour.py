"""The five-minute tour: a rule, an event, and what came of it. Needs `make up` in another terminal.

.venv/bin/python examples/tour.py
"""

import asyncio
import sys
from pathlib import Path

from go2asia.connect.v1 import events_pb2, rules_pb2
from go2asia.connect.v1.events_pb2_grpc import EventServiceStub
from go2asia.connect.v1.rules_pb2_grpc import RuleServiceStub
from go2asia.points.v1 import points_pb2
from go2asia.points.v1.points_pb2_grpc import PointsServiceStub

from mesh.client import open_channel
from mesh.config import TlsFiles
from mesh.errors import MeshError

CERTIFICATES = Path(".dev/up/certificates")
CONNECT, POINTS = "127.0.0.1:7101", "127.0.0.1:7102"


def identity(name: str) -> TlsFiles:
    """Return the certificate of `<role>/<name>`: who we are is what it says."""
    return TlsFiles(
        cert=CERTIFICATES / f"{name}.pem",
        key=CERTIFICATES / f"{name}.key",
        ca=CERTIFICATES / "ca.pem",
    )


async def write_a_rule() -> None:
    """An economy manager decides: 100 points for a quest, 300 for a hard one."""
    rule = rules_pb2.Rule(rule_id="tour", event_type="tour.quest_completed")
    points = rule.actions.add(key="points").credit_points
    points.unit, points.amount = "G2A", 'event.context.difficulty == "hard" ? 300 : 100'
    async with open_channel(CONNECT, identity("economy-manager/manager")) as channel:
        await RuleServiceStub(channel).CreateRule(
            rules_pb2.CreateRuleRequest(request_id="tour-rule-1", rule=rule)
        )


async def report_an_event() -> str:
    """The Quest Service says what happened; sending it twice changes nothing."""
    event = events_pb2.Event(
        source="quest", external_id="tour-1", event_type="tour.quest_completed", actor_user_id="you"
    )
    event.context["difficulty"] = "hard"
    event.occurred_time.FromJsonString("2025-06-02T10:00:00Z")
    async with open_channel(CONNECT, identity("domain-service/quest")) as channel:
        answer = await EventServiceStub(channel).SubmitEvent(
            events_pb2.SubmitEventRequest(event=event)
        )
    print(f"event {answer.receipt.event_id}, seen before: {answer.receipt.duplicate}")
    return answer.receipt.event_id


async def read_the_story(event_id: str) -> None:
    """Operations ask what was decided, why, and what became of it."""
    async with open_channel(CONNECT, identity("operator/ops")) as channel:
        await asyncio.sleep(1)
        story = await EventServiceStub(channel).GetEvent(
            events_pb2.GetEventRequest(event_id=event_id)
        )
    for action in story.actions:
        state = type(action).State.Name(action.state)
        print(f"rule {action.rule_id} gave {action.credit_points.amount}: {state}")


async def read_the_balance() -> None:
    """The BFF may read balances, and is refused when it tries to give points."""
    async with open_channel(POINTS, identity("bff/bff")) as channel:
        points = PointsServiceStub(channel)
        request = points_pb2.GetBalanceRequest(user_id="you", unit="G2A")
        print(f"your balance: {(await points.GetBalance(request)).balance.available} G2A")
        try:
            await points.Award(points_pb2.AwardRequest(request_id="cheat"))
        except MeshError as error:
            print(f"refused: {error.reason}: {error.message}")


async def main() -> None:
    """Walk through the mesh once."""
    await write_a_rule()
    await read_the_story(await report_an_event())
    await read_the_balance()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except MeshError as error:
        sys.exit(
            f"{error.reason}: {error.message}\nCheck that `make up` serves at these addresses."
        )
