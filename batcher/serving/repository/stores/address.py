"""Addresses of stores: which kinds there are, and that none holds a password.

    s3://bucket/folder     Amazon S3, and every server that speaks its protocol
    gs://bucket/folder     Google Cloud Storage
    az://container/folder  Azure Blob Storage
    https://host/folder    a web server: an index file, or folders that it lists

Everything else is a folder of this machine. Addresses go into logs and errors. So an address with a
password, or a query, which may be a signature, is refused, and the message repeats neither.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from batcher.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
KINDS = ("s3", "gs", "az", "https")
"""The schemes of addresses."""


def is_store(place: str) -> bool:
    """Return whether `place`, of a setting, is the address of a store, not a folder."""
    return _SCHEME.match(place) is not None


def plain_address(place: str) -> str:
    """Return the address `place` as stores are known by it: `S3://b/` and `s3://b` are one."""
    scheme, mark, rest = place.partition("://")
    return f"{scheme.lower()}{mark}{rest.rstrip('/')}"


def check_address(place: str, where: str) -> str:
    """Return the plain form of the address `place`; `where` is the setting, for errors.

    Raises:
        ConfigError: there is no such kind of store, or the address holds a secret.
    """
    scheme = place.partition("://")[0].lower()
    if scheme not in KINDS:
        raise ConfigError(
            f"{where}: expected a folder, or an address that begins with "
            f"{', '.join(f'{kind}://' for kind in KINDS)}; got {scheme}://…"
        )
    try:
        parts = urlsplit(place)
        host, secret = parts.hostname, bool(parts.username or parts.query or parts.fragment)
    except ValueError:
        host, secret = None, False
    if secret or "@" in place.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            f"{where}: expected an address without a password and without a query; got one "
            f"({scheme}://…). Credentials come from the environment: docs/stores.md says how"
        )
    if not host:
        raise ConfigError(f"{where}: expected {scheme}://NAME/FOLDER; got no name")
    return plain_address(place)
