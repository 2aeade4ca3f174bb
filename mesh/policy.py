"""The contract's word on each RPC, read from its method option `go2asia.mesh.v1.policy`."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from go2asia.mesh.v1 import policy_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor


class PolicyError(Exception):
    """A contract lacks what the chassis must enforce, so the service may not be served."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One method's policy; times in seconds.

    `max_deadline` is None for streams that live until someone hangs up. `retryable` covers both
    retry classes that allow a repetition: SAFE and IDEMPOTENT.
    """

    roles: frozenset[str]
    default_deadline: float | None
    max_deadline: float | None
    retryable: bool
    streaming: bool


def role_name(role: policy_pb2.Role.ValueType) -> str:
    """The role as certificates spell it: ROLE_DOMAIN_SERVICE is `domain-service`."""
    return policy_pb2.Role.Name(role).removeprefix("ROLE_").lower().replace("_", "-")


def service_policies(service: str) -> Mapping[str, Policy]:
    """The policy of each method of a service, by RPC path (`/package.Service/Method`).

    Raises `PolicyError` if a method has none, or one that makes no sense.
    """
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise PolicyError(
            f"No service {service} is known; pass its full name and import its _pb2 module."
        ) from None
    return {_path(descriptor, method): _read(method) for method in descriptor.methods}


@functools.cache
def method_policy(path: str) -> Policy | None:
    """The policy of one RPC path, or None for services outside the mesh (health, reflection)."""
    service, _, method = path.removeprefix("/").partition("/")
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None
    found = descriptor.methods_by_name.get(method)
    if found is None or not found.GetOptions().HasExtension(policy_pb2.policy):
        return None
    return _read(found)


def _path(service: ServiceDescriptor, method: MethodDescriptor) -> str:
    return f"/{service.full_name}/{method.name}"


def _read(method: MethodDescriptor) -> Policy:
    options = method.GetOptions()
    if not options.HasExtension(policy_pb2.policy):
        raise PolicyError(
            f"{method.full_name} has no policy; add `option (go2asia.mesh.v1.policy)` to its rpc."
        )
    declared = options.Extensions[policy_pb2.policy]
    policy = Policy(
        roles=frozenset(role_name(role) for role in declared.roles),
        default_deadline=_seconds(declared, "default_deadline"),
        max_deadline=_seconds(declared, "max_deadline"),
        retryable=declared.retry
        in (policy_pb2.RETRY_CLASS_SAFE, policy_pb2.RETRY_CLASS_IDEMPOTENT),
        streaming=method.server_streaming,
    )
    _demand_sense(method, policy)
    return policy


def _seconds(declared: policy_pb2.MethodPolicy, field: str) -> float | None:
    if not declared.HasField(field):  # type: ignore[arg-type]
        return None
    duration = getattr(declared, field)
    return float(duration.seconds + duration.nanos / 1e9)


def _demand_sense(method: MethodDescriptor, policy: Policy) -> None:
    name = method.full_name
    if method.client_streaming:
        raise PolicyError(f"{name} streams its requests; the chassis serves unary requests only.")
    if not policy.roles or "unspecified" in policy.roles:
        raise PolicyError(f"{name} admits nobody; name the roles that may call it.")
    if policy.streaming:
        return
    if not policy.default_deadline or not policy.max_deadline:
        raise PolicyError(f"{name} is unary and needs default_deadline and max_deadline above 0.")
    if policy.default_deadline > policy.max_deadline:
        raise PolicyError(f"{name}: default_deadline exceeds max_deadline; swap or align them.")
