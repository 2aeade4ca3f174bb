"""Mutual TLS from one set of files: for gRPC's two ends and for the event bus."""

import ssl

import grpc

from mesh.config import ConfigurationError, TlsFiles


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that admit nobody without a certificate of the mesh's CA."""
    cert, key, ca = _read(files)
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials that present our certificate and trust the mesh's CA alone."""
    cert, key, ca = _read(files)
    return grpc.ssl_channel_credentials(ca, key, cert)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The same for connections that are not gRPC."""
    _read(files)
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    return context


def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    try:
        return files.cert.read_bytes(), files.key.read_bytes(), files.ca.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"Cannot read {error.filename}: {error.strerror}; "
            "point the TLS_CERT, TLS_KEY and TLS_CA settings at readable PEM files."
        ) from None
