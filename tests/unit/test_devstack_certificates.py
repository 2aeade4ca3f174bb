"""Development certificates: who is in them, who trusts them, when they are renewed."""

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from devstack import certificates
from devstack.certificates import Authority


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> x509.SubjectAlternativeName:
    return load(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_the_identity_is_the_uri(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("domain-service/quest")
    uris = names(files.cert).get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://go2asia.local/domain-service/quest"]


def test_servers_carry_the_loopback_names_and_clients_do_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = names(authority.issue("points/points").cert)
    assert server.get_values_for_type(x509.DNSName) == ["localhost"]
    assert server.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert len(list(names(authority.issue("bff/bff").cert))) == 1


def test_clients_and_servers_verify_against_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("points/points")
    policy = PolicyBuilder().store(Store([load(files.ca)]))
    host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    policy.build_server_verifier(host).verify(load(files.cert), [])
    policy.build_client_verifier().verify(load(authority.issue("bff/bff").cert), [])


def test_keys_are_p256_and_closed_to_others(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("bff/bff")
    key = load(files.cert).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    for path in (files.key, tmp_path / "ca.key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_request_gives_the_same_certificate(tmp_path: Path) -> None:
    first = Authority(tmp_path).issue("bff/bff").cert.read_bytes()
    assert Authority(tmp_path).issue("bff/bff").cert.read_bytes() == first


@pytest.mark.parametrize(("days", "renewed"), [(59, False), (61, True)])
def test_a_certificate_near_its_end_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, renewed: bool
) -> None:
    files = Authority(tmp_path).issue("bff/bff")
    before = files.cert.read_bytes()
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    Authority(tmp_path).issue("bff/bff")
    assert (files.cert.read_bytes() != before) is renewed


def test_a_new_authority_replaces_the_old_ones_certificates(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("bff/bff")
    (tmp_path / "ca.pem").unlink()
    Authority(tmp_path).issue("bff/bff")
    load(files.cert).verify_directly_issued_by(load(files.ca))


@pytest.mark.parametrize("identity", ["", "bff", "bff/", "/bff", "a/b/c", "../x/y", "bff/../x"])
def test_nonsense_identities_are_refused(tmp_path: Path, identity: str) -> None:
    with pytest.raises(ValueError, match="write <role>/<name>"):
        Authority(tmp_path).issue(identity)


def test_issued_identities_are_listed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for identity in ("nft/nft", "domain-service/quest"):
        authority.issue(identity)
    assert authority.identities() == ["domain-service/quest", "nft/nft"]
