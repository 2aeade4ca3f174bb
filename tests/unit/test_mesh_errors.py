"""Errors name themselves once and come back from the wire as the same class."""

import pytest

from mesh import errors
from mesh.errors import Conflict, Kind, MeshError, NotFound, Overloaded, Unavailable, rebuild


@pytest.fixture(autouse=True)
def private_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_registry", dict(errors._registry))


def declare(reason: str, domain: str = "test.go2asia") -> type[MeshError]:
    doc = "The thing was refused;\nask for another one.\n\nNot part of the message."
    body = {
        "__doc__": doc,
        "kind": Kind.FAILED_PRECONDITION,
        "reason": reason,
        "domain": domain,
    }
    return type("Refused", (MeshError,), body)


def test_first_paragraph_of_the_docstring_is_the_message() -> None:
    assert declare("REFUSED")().message == "The thing was refused; ask for another one."


def test_message_field_and_metadata_are_kept() -> None:
    error = NotFound("No such badge; list the catalogue.", field="code", resource_id="x")
    assert str(error) == error.message == "No such badge; list the catalogue."
    assert (error.field, error.metadata) == ("code", {"resource_id": "x"})


def test_a_declared_error_is_rebuilt_as_its_own_class() -> None:
    cls = declare("REFUSED")
    error = rebuild(
        Kind.FAILED_PRECONDITION,
        domain="test.go2asia",
        reason="REFUSED",
        message="no",
        field="unit",
        metadata={"message": "a name that is also a parameter"},
    )
    assert type(error) is cls
    assert error.metadata == {"message": "a name that is also a parameter"}
    assert (error.message, error.field) == ("no", "unit")


def test_an_unknown_reason_keeps_its_kind() -> None:
    error = rebuild(
        Kind.ABORTED, domain="other", reason="ODD", message="no", field=None, metadata={}
    )
    assert (error.kind, error.domain, error.reason) == (Kind.ABORTED, "other", "ODD")
    assert not error.transient, "only CONCURRENT_UPDATE asks for the same request again"


def test_two_classes_cannot_claim_one_reason() -> None:
    declare("TWICE")
    declare("TWICE", domain="elsewhere.go2asia")
    with pytest.raises(TypeError, match="give one of them another reason"):
        declare("TWICE")


def test_an_error_without_a_message_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a docstring"):
        type("Silent", (MeshError,), {"reason": "SILENT"})


def test_only_passing_failures_are_transient() -> None:
    assert Unavailable().transient
    assert Overloaded().transient
    assert Conflict().transient
    assert not NotFound().transient
    assert not errors.Internal().transient
