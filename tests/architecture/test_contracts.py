"""The contracts and the code keep faith with each other."""

import importlib

import pytest
from buf.validate import validate_pb2
from go2asia.connect.v1 import errors_pb2 as connect_errors
from go2asia.gateway.v1 import errors_pb2 as gateway_errors
from go2asia.mesh.v1 import errors_pb2 as mesh_errors
from go2asia.nft.v1 import errors_pb2 as nft_errors
from go2asia.points.v1 import errors_pb2 as points_errors
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from mesh.errors import MeshError

REASONS = {
    "mesh.go2asia": (mesh_errors.ErrorReason, "mesh.errors"),
    "connect.go2asia": (connect_errors.ErrorReason, "connect_svc.errors"),
    "points.go2asia": (points_errors.ErrorReason, "points_svc.errors"),
    "nft.go2asia": (nft_errors.ErrorReason, "nft_svc.errors"),
    "gateway.go2asia": (gateway_errors.ErrorReason, "chain_gateway.errors"),
}


def subclasses(of: type) -> set[type]:
    return {each for child in of.__subclasses__() for each in {child, *subclasses(child)}}


@pytest.mark.parametrize("domain", REASONS)
def test_every_failure_is_in_the_contract_and_none_is_only_there(domain: str) -> None:
    enum, module = REASONS[domain]
    importlib.import_module(module)
    declared = {name.removeprefix("ERROR_REASON_") for name in enum.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    raised = {
        each.reason
        for each in subclasses(MeshError)
        if each.domain == domain and "reason" in vars(each)
    }
    assert raised == declared


def test_the_vendored_validate_proto_is_the_library_s_own() -> None:
    """protovalidate carries its schema inside; ours must not drift from it."""
    ours = FileDescriptorProto()
    validate_pb2.DESCRIPTOR.CopyToProto(ours)
    package = importlib.import_module("protovalidate._gen.buf.validate.validate_pb")
    theirs = FileDescriptorProto.FromString(descriptor_bytes(package))
    assert fields_of(ours) == fields_of(theirs)
    assert [e.number for e in ours.extension] == [e.number for e in theirs.extension]


def fields_of(file: FileDescriptorProto) -> dict[str, set[tuple[str, int, int, int]]]:
    """Name, number, type and label of every field, by message; their order means nothing."""
    return {
        message.name: {(f.name, f.number, f.type, f.label) for f in message.field}
        for message in file.message_type
    }


def descriptor_bytes(package: object) -> bytes:
    file = next(value for value in vars(package).values() if type(value).__name__ == "DescFile")
    return bytes(file.proto.to_binary())
