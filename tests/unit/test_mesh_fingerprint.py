"""A fingerprint is of the input: the request id is not part of it, everything else is."""

from go2asia.points.v1 import points_pb2 as pb

from mesh.idempotency import fingerprint


def award(request_id: str = "r1", **details: object) -> pb.AwardRequest:
    facts = {"user_id": "u1", "unit": "G2A", "amount": 5, **details}
    return pb.AwardRequest(request_id=request_id, posting=pb.PostingDetails(**facts))  # type: ignore[arg-type]


def test_it_is_versioned_sha256() -> None:
    found = fingerprint(award())
    assert (found[0], len(found)) == (1, 33)


def test_the_request_id_does_not_count_and_stays() -> None:
    request = award("r2")
    assert fingerprint(award("r1")) == fingerprint(request)
    assert request.request_id == "r2"


def test_any_other_field_counts() -> None:
    assert fingerprint(award()) != fingerprint(award(amount=6))


def test_fields_unknown_to_this_version_count() -> None:
    newer = award()
    newer.MergeFromString(b"\xfa\x7f\x01x")
    assert fingerprint(newer) != fingerprint(award())
