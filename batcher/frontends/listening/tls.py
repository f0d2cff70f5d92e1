"""The server's certificate: which files hold it, and the context that the standard library needs.

The files are read when the server starts and again at each reload, so a certificate is renewed
without a restart.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError

HTTP_1 = "http/1.1"
HTTP_2 = "h2"
"""What a port speaks, by the names that clients offer in their TLS handshake (ALPN, RFC 7301)."""


class Tls(NamedTuple):
    """The files of the server's certificate.

    Attributes:
        certificate: PEM file with the certificate and the certificates above it in its chain.
        key: PEM file with the key.
    """

    certificate: Path
    key: Path


def tls_files(settings: ServerSettings, base: Path) -> Tls | None:
    """Return certificate and key in the settings, None without them.

    Raises:
        ConfigError: they cannot be read, or do not belong together.
    """
    if settings.tls_certificate is None:
        return None
    tls = Tls(
        base / settings.tls_certificate, base / (settings.tls_key or settings.tls_certificate)
    )
    try:
        tls_context(tls)
    except (OSError, ValueError) as err:  # ssl.SSLError is an OSError
        expected = f"a certificate and its key in PEM; got {tls.certificate} and {tls.key}"
        raise ConfigError(
            f"{settings.origin('tls_certificate')}: tls_certificate: expected {expected}: {err}"
        ) from err
    return tls


def tls_context(tls: Tls, protocol: str = HTTP_1) -> ssl.SSLContext:
    """Return a context of the standard library for a port that speaks `protocol`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    context.load_cert_chain(tls.certificate, tls.key)
    return context
