"""RPC tests run over real sockets and mutual TLS; a test says whom it acts as."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest

from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.testing import LoopServer
from mesh.tls import channel_credentials
from tests.rpc.reward_processes import Services

# A service that was killed is back before; the machine may be busy.
RETRY_FOR = timedelta(seconds=30)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues the certificates of every member that a test needs."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def _grpc_server(authority: Authority) -> Iterator[LoopServer]:
    """pytest-grpc's server: ours."""
    server = LoopServer(authority.issue("points/points"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def act_as(
    grpc_create_channel: Callable[..., grpc.Channel],
    grpc_stub_class: Callable[[grpc.Channel], Any],
    authority: Authority,
) -> Iterator[Callable[[str], Any]]:
    """A blocking stub that calls as the given identity, e.g. `act_as("bff/web")`.

    The module declares the fixtures `grpc_add_to_server`, `grpc_servicer` (pytest-grpc) and
    `grpc_stub_class`.
    """
    with ExitStack() as channels:

        def stub(identity: str) -> Any:
            credentials = channel_credentials(authority.issue(identity))
            return grpc_stub_class(channels.enter_context(grpc_create_channel(credentials)))

        yield stub


@pytest.fixture
def services(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> Iterator[Services]:
    """Connect, Points and NFT, none of them started."""
    services = Services(postgres, make_database, authority)
    yield services
    services.end_all()


@pytest.fixture
async def channel(services: Services, authority: Authority) -> AsyncIterator[Callable[..., Any]]:
    """Opens a channel to a service as an identity; its calls outlast a restart."""
    async with AsyncExitStack() as channels:

        async def channel(name: str, identity: str) -> Any:
            tls = authority.issue(identity)
            opened = open_channel(services.address(name), tls, retry_for=RETRY_FOR)
            return await channels.enter_async_context(opened)

        yield channel
