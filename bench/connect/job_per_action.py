"""Connect's flow as one would build it on procrastinate: `python -m bench.connect.job_per_action`.

The same contract, rules, tables and targets. Each event is taken in by a transaction of its own,
which defers a job an action; each job sends its action and notes the outcome in a transaction of
its own.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import procrastinate
from go2asia.connect.v1 import events_pb2, events_pb2_grpc
from go2asia.connect.v1.reward_actions_pb2 import RewardAction

from connect_svc import convert
from connect_svc.catalog import CatalogCache
from connect_svc.clients import Clients
from connect_svc.config import ConnectSettings
from connect_svc.intake import Batch
from connect_svc.lanes import LANES
from connect_svc.normalization import Submission, admit
from connect_svc.rationing import ration
from connect_svc.records import Receipt, State, Verdict
from connect_svc.rules import Action
from connect_svc.store import ActionStore, EventStore, RuleStore
from connect_svc.targets import NftTarget, PointsTarget, Target
from mesh import telemetry
from mesh.db import Connection, Database, driver
from mesh.identity import caller
from mesh.outbox import Done
from mesh.server import Registration, run, serve

CONNECTIONS = 24
JOBS_AT_A_TIME = 20

# The type stubs want every method of the service; here one is enough.
_Base: Any = events_pb2_grpc.EventServiceServicer

# What `Task.defer` does, within the transaction that stores the actions.
_DEFER = """
SELECT procrastinate_defer_jobs_v1(array_agg(ROW('default', 'dispatch', 0, NULL, NULL,
    jsonb_build_object('lane', lane, 'action', action), NULL)::procrastinate_job_to_defer_v1))
FROM unnest(%s::text[], %s::text[]) AS j (lane, action)
"""


class OneByOne(_Base):  # type: ignore[misc]
    """Takes each event in by itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._catalog = CatalogCache()
        self._turns = asyncio.Semaphore(CONNECTIONS // 2)

    async def BatchSubmitEvents(  # noqa: N802
        self, request: events_pb2.BatchSubmitEventsRequest, context: Any
    ) -> events_pb2.BatchSubmitEventsResponse:
        """Takes in each event; raises where Connect would answer with an error."""
        admitted = [admit(event, caller(), "events") for event in request.events]
        receipts = await asyncio.gather(*(self._submit(each) for each in admitted))
        results = [
            events_pb2.SubmitEventResult(receipt=convert.receipt(receipt)) for receipt in receipts
        ]
        return events_pb2.BatchSubmitEventsResponse(results=results)

    async def _submit(self, submission: Submission) -> Receipt:
        async with self._turns:
            return await self._database.run(lambda c: self._take(c, submission))

    async def _take(self, connection: Connection, submission: Submission) -> Receipt:
        events = EventStore(connection)
        moment = await events.moment()
        catalogue = await self._catalog.at(moment.catalog_version, RuleStore(connection))
        batch = Batch(catalogue, moment, await events.known({submission.key}))
        batch.enter(submission, None)
        batch.conclude(await ration(connection, batch.trials))
        await events.add(batch.taken)
        await ActionStore(connection).add(batch.actions)
        await _defer(connection, batch.actions)
        [answer] = batch.answers
        if isinstance(answer, Exception):
            raise answer
        return answer


async def _defer(connection: Connection, actions: Sequence[Action]) -> None:
    lanes = [LANES[action.kind] for action in actions]
    payloads = [convert.reward_action(action).SerializeToString() for action in actions]
    encoded = [base64.b64encode(payload).decode() for payload in payloads]
    await driver(connection).execute(_DEFER, [lanes, encoded])


def jobs(database: Database, targets: Sequence[Target], url: str) -> procrastinate.App:
    """The app whose jobs send one action each."""
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=2, max_size=CONNECTIONS)
    app = procrastinate.App(connector=connector)
    by_lane = {target.lane: target for target in targets}

    @app.task(name="dispatch")
    async def dispatch(lane: str, action: str) -> None:
        sent = RewardAction.FromString(base64.b64decode(action))
        [outcome] = await by_lane[lane].deliver([sent])
        if not isinstance(outcome, Done):
            raise RuntimeError(f"{lane} did not do it: {outcome}")
        verdict = Verdict(sent.action_id, State.COMPLETED, 1, result=str(outcome.result))
        await database.run(lambda c: ActionStore(c).settle([verdict]))

    return app


async def main() -> None:
    """Serves and works until told to stop."""
    settings = ConnectSettings()
    telemetry.start("connect", settings)
    url = settings.database_url.get_secret_value()
    async with (
        Database(url, application_name="naive", pool_size=CONNECTIONS) as database,
        Clients(settings) as clients,
    ):
        service = Registration(
            events_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
            events_pb2_grpc.add_EventServiceServicer_to_server,
            OneByOne(database),
        )
        targets = [PointsTarget(clients), NftTarget(clients)]
        app = jobs(database, targets, url.replace("+psycopg", ""))
        async with app.open_async():
            working = asyncio.create_task(
                app.run_worker_async(
                    concurrency=JOBS_AT_A_TIME, delete_jobs="always", install_signal_handlers=False
                )
            )
            await serve(settings, [service], probes={})
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


if __name__ == "__main__":
    run(main())
