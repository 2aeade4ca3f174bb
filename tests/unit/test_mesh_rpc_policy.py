"""Policies as the contracts declare them, identities as certificates spell them."""

import pytest
from go2asia.connect.v1 import events_pb2, reward_actions_pb2, rules_pb2
from go2asia.gateway.v1 import chain_pb2, minting_pb2, wallets_pb2
from go2asia.mesh.v1 import policy_pb2
from go2asia.nft.v1 import callbacks_pb2, catalog_pb2, nft_pb2, rewards_pb2
from go2asia.points.v1 import points_pb2

from mesh import deadline
from mesh.errors import DeadlineExceeded, Unauthenticated
from mesh.identity import Identity
from mesh.policy import PolicyError, method_policy, role_name, service_policies

MODULES = (
    *(callbacks_pb2, catalog_pb2, chain_pb2, events_pb2, minting_pb2, nft_pb2, points_pb2),
    *(reward_actions_pb2, rewards_pb2, rules_pb2, wallets_pb2),
)
SERVICES = [
    service.full_name
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_of_the_mesh_can_be_served(service: str) -> None:
    assert service_policies(service)


def test_a_policy_is_read_from_the_contract() -> None:
    policy = method_policy("/go2asia.points.v1.PointsService/GetBalance")
    assert policy is not None
    assert policy.roles == {"connect", "bff", "operator", "domain-service"}
    assert (policy.default_deadline, policy.max_deadline) == (5, 30)
    assert policy.retryable
    assert not policy.streaming


def test_a_stream_may_live_for_ever_and_is_not_repeated() -> None:
    policy = method_policy("/go2asia.nft.v1.NftService/WatchMintStatus")
    assert policy is not None
    assert policy.streaming
    assert policy.max_deadline is None
    assert not policy.retryable


def test_methods_outside_the_mesh_have_no_policy() -> None:
    assert method_policy("/grpc.health.v1.Health/Check") is None
    assert method_policy("/nowhere.Service/Method") is None


def test_an_unknown_service_is_explained() -> None:
    with pytest.raises(PolicyError, match="import its _pb2 module"):
        service_policies("nowhere.Service")


def test_roles_are_spelled_with_dashes() -> None:
    assert role_name(policy_pb2.ROLE_DOMAIN_SERVICE) == "domain-service"


def test_an_identity_is_its_uri() -> None:
    identity = Identity.parse("spiffe://go2asia.local/domain-service/quest")
    assert (identity.role, identity.name) == ("domain-service", "quest")
    assert identity.uri == "spiffe://go2asia.local/domain-service/quest"
    assert str(identity) == "domain-service/quest"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://go2asia.local/connect",
        "spiffe://go2asia.local//x",
        "spiffe://go2asia.local/connect/",
        "spiffe://go2asia.local/connect/a/b",
        "spiffe://elsewhere.local/connect/connect",
        "connect/connect",
    ],
)
def test_other_uris_are_nobody(uri: str) -> None:
    with pytest.raises(Unauthenticated, match="issued for"):
        Identity.parse(uri)


def test_a_server_works_within_the_smaller_limit() -> None:
    assert deadline.accepted(5, 30) == 5
    assert deadline.accepted(500, 30) == 30
    assert deadline.accepted(None, 30) == 30
    assert deadline.accepted(None, None) is None
    with pytest.raises(DeadlineExceeded, match="allow it more time"):
        deadline.accepted(0.001, 30)


async def test_a_client_takes_what_is_left_less_the_margin() -> None:
    assert deadline.outgoing(5) == 5
    deadline.bind(1)
    left = deadline.outgoing(5)
    assert left is not None
    assert 0.9 < left <= 1 - deadline.HOP_MARGIN_SECONDS
    assert deadline.outgoing(0.5) == 0.5
    deadline.bind(0.012)
    with pytest.raises(DeadlineExceeded):
        deadline.outgoing(5)
