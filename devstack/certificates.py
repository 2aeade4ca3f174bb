"""A development certificate authority: who is who inside one stack.

Every process and every caller gets a certificate with its identity as the URI subject alternative
name, `spiffe://go2asia.local/<role>/<name>`. Servers also get the loopback names, so that clients
can check whom they talk to. Never use these outside a development machine: the authority's key
lies beside the certificates.
"""

import datetime
import ipaddress
import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devstack.files import write
from mesh.config import TlsFiles
from mesh.identity import TRUST_DOMAIN

SERVER_ROLES = frozenset({"connect", "points", "nft", "gateway", "nats"})
AUTHORITY_LIFE = datetime.timedelta(days=3650)
LIFE = datetime.timedelta(days=90)
RENEW_BEFORE = datetime.timedelta(days=30)
IDENTITY = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")
CLOCK_SKEW = datetime.timedelta(minutes=5)


def spiffe_id(identity: str) -> str:
    """The URI of an identity such as `domain-service/quest`."""
    return f"{TRUST_DOMAIN}{identity}"


class Authority:
    """The development CA in `folder`, and the certificates it issued there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cert_file = folder / "ca.pem"
        self._key_file = folder / "ca.key"

    def issue(self, identity: str) -> TlsFiles:
        """The files of `<role>/<name>`; made on first request and again when near expiry.

        Raises ValueError when `identity` is not of that form.
        """
        role, _, name = identity.partition("/")
        if not IDENTITY.fullmatch(identity):
            raise ValueError(f"'{identity}' is no identity: write <role>/<name>, as in bff/bff")
        ca_cert, ca_key = self._authority()
        folder = self.folder / role
        files = TlsFiles(
            cert=folder / f"{name}.pem", key=folder / f"{name}.key", ca=self._cert_file
        )
        if not _usable(files, ca_cert):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _leaf(identity, key.public_key(), ca_cert, ca_key)
            _write_key(files.key, key)
            write(files.cert, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return files

    def identities(self) -> list[str]:
        """Every identity that has a certificate here."""
        return sorted(f"{path.parent.name}/{path.stem}" for path in self.folder.glob("*/*.pem"))

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if self._cert_file.exists() and self._key_file.exists():
            certificate = x509.load_pem_x509_certificate(self._cert_file.read_bytes())
            key = _load_key(self._key_file)
            if _belongs(key, certificate) and certificate.not_valid_after_utc - LIFE > _now():
                return certificate, key
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _root(key)
        _write_key(self._key_file, key)
        write(self._cert_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return certificate, key


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _usable(files: TlsFiles, ca_cert: x509.Certificate) -> bool:
    if not files.cert.exists() or not files.key.exists():
        return False
    certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
    if certificate.not_valid_after_utc - RENEW_BEFORE < _now():
        return False
    try:
        certificate.verify_directly_issued_by(ca_cert)
    except (ValueError, TypeError, InvalidSignature):
        return False  # an older authority's
    return _belongs(_load_key(files.key), certificate)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is no key of ours; remove {path.parent} to start anew.")
    return key


def _belongs(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    """Whether the two are a pair: we may have been killed between writing one and the other."""
    return key.public_key() == certificate.public_key()


def _builder(common_name: str, life: datetime.timedelta) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = "Go2Asia development CA"
    return (
        _builder(name, AUTHORITY_LIFE)
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    identity: str,
    public_key: ec.EllipticCurvePublicKey,
    ca_cert: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id(identity))]
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.partition("/")[0] in SERVER_ROLES:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names += [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
    return (
        _builder(identity, LIFE)
        .issuer_name(ca_cert.subject)
        .public_key(public_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write(path, pem)
