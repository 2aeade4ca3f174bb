"""What Connect serves."""

from collections.abc import Callable

from go2asia.connect.v1 import (
    backfills_pb2,
    backfills_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    reward_actions_pb2,
    reward_actions_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
)

from connect_svc.catalog import CatalogCache
from connect_svc.intake import Intake
from connect_svc.servicer import (
    BackfillServicer,
    EventServicer,
    RewardActionServicer,
    RuleServicer,
)
from mesh.db import Database
from mesh.server import Registration


def registrations(
    intake: Intake,
    database: Database,
    catalog: CatalogCache,
    *,
    dispatch: Callable[[], None],
    backfill: Callable[[], None],
) -> list[Registration]:
    """The services that Connect offers.

    `dispatch` and `backfill` wake whoever sends actions and whoever carries backfills on.
    """
    return [
        Registration(
            events_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
            events_pb2_grpc.add_EventServiceServicer_to_server,
            EventServicer(intake, database, wake=dispatch),
        ),
        Registration(
            rules_pb2.DESCRIPTOR.services_by_name["RuleService"].full_name,
            rules_pb2_grpc.add_RuleServiceServicer_to_server,
            RuleServicer(database, catalog),
        ),
        Registration(
            backfills_pb2.DESCRIPTOR.services_by_name["BackfillService"].full_name,
            backfills_pb2_grpc.add_BackfillServiceServicer_to_server,
            BackfillServicer(database, wake=backfill),
        ),
        Registration(
            reward_actions_pb2.DESCRIPTOR.services_by_name["RewardActionService"].full_name,
            reward_actions_pb2_grpc.add_RewardActionServiceServicer_to_server,
            RewardActionServicer(database, wake=dispatch),
        ),
    ]
