"""Mutual TLS from one set of files: for gRPC's two ends and for the event bus."""

import ssl

import grpc

from mesh.config import ConfigurationError, TlsFiles


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that admit nobody without a certificate of the mesh's CA."""
    cert, key, ca = _sound(files)
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials that present our certificate and trust the mesh's CA alone."""
    cert, key, ca = _sound(files)
    return grpc.ssl_channel_credentials(ca, key, cert)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The same for connections that are not gRPC."""
    _read(files)
    return _context(files)


def _sound(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    """What the files hold. gRPC itself takes anything, and then never connects."""
    read = _read(files)
    _context(files)
    return read


def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    try:
        return files.cert.read_bytes(), files.key.read_bytes(), files.ca.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"Cannot read {error.filename}: {error.strerror}; "
            "point the TLS_CERT, TLS_KEY and TLS_CA settings at readable PEM files."
        ) from None


def _context(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca)
    except ssl.SSLError:
        raise ConfigurationError(
            f"{files.ca} holds no CA certificate; give the mesh's, as PEM."
        ) from None
    try:
        context.load_cert_chain(files.cert, files.key, password="")  # never asks for one
    except ssl.SSLError:
        raise ConfigurationError(
            f"{files.cert} and {files.key} are no certificate and its private key; give both as "
            "PEM, the key unencrypted."
        ) from None
    return context
