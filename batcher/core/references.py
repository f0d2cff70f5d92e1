r"""Addresses that stand in place of inputs: `{"ref": "s3://photos/1.jpg"}`.

A client chooses the address, so every address that two programs could read in two ways is refused.
What is left has one form, segment by segment, and is compared with the prefixes of the operator.

    s3://BUCKET/KEY   gs://BUCKET/KEY   az://CONTAINER/KEY   https://HOST[:PORT]/PATH   http://…

| refused                                  | why |
|---|---|
| a user, a query, a fragment              | credentials; another file than the path names |
| `.`, `..`, `..;`, an empty segment       | leads out of the prefix, here or there |
| `\`, `%2f`, `%5c`, `%25`, controls       | some servers take them for `/`, or decode again |
| `%` in a bucket                          | keys are sent as they are |
| letters that NFKC changes, as wide ones  | some programs make `/` and `.` of them |
| a host that is not in lower case ASCII   | names that look alike |

A prefix ends between two segments: `s3://photos/cats` does not hold `s3://photos/cats2/1.jpg`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from batcher.core.error_text import brief
from batcher.errors import InvalidInput

MAX_ADDRESS_CHARS: Final = 2048
"""Longest address: a key of S3 has at most 1,024 bytes, and percent-encoding triples a byte."""

BUCKETS: Final = ("s3", "gs", "az")
WEB_PORTS: Final = {"https": 443, "http": 80}
SCHEMES: Final = (*BUCKETS, *WEB_PORTS)

_ADDRESS = re.compile(r"([a-z0-9]+)://([^/]*)/(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,253}")
_HOST = re.compile(r"([a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?")
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_OF_PATHS = "/~!$&'()*+,;=:@"
_NUMERIC = re.compile(r"0x[0-9a-f]*|[0-9]+")


class Reference(NamedTuple):
    """An address of which there is one reading.

    Attributes:
        scheme: one of SCHEMES.
        host: a bucket, or a host in lower case.
        port: of a web server; 0 for a bucket.
        segments: of the path, nothing encoded.
    """

    scheme: str
    host: str
    port: int
    segments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The path, nothing encoded, without a slash in front."""
        return "/".join(self.segments)

    @property
    def path(self) -> str:
        """The path as it is sent to a web server, with the slash in front."""
        return f"/{quote(self.name, safe=_OF_PATHS)}"

    @property
    def address(self) -> str:
        """The address in the one form that all ways to write it have."""
        if self.scheme in BUCKETS:
            return f"{self.scheme}://{self.host}/{self.name}"
        return f"{self.scheme}://{self.host}:{self.port}{self.path}"

    @property
    def literal(self) -> IPv4Address | IPv6Address | None:
        """The address that the host of a web server is; None for a name, and for a bucket."""
        if self.scheme in BUCKETS:
            return None
        try:
            return ip_address(self.host.strip("[]"))
        except ValueError:
            return None

    def is_below(self, prefix: Reference) -> bool:
        """Return whether this is the file `prefix`, or one below that folder."""
        return self[:3] == prefix[:3] and self.segments[: len(prefix.segments)] == prefix.segments


def parse_reference(text: str, is_prefix: bool = False) -> Reference:
    """Return what the address `text` means; that of a folder may be empty, or end with a slash.

    Raises InvalidInput, which says what is wrong, and begins with "expected".
    """
    if len(text) > MAX_ADDRESS_CHARS:
        raise InvalidInput(
            f"expected an address of at most {MAX_ADDRESS_CHARS} characters; got {len(text)}"
        )
    if is_prefix and "/" not in text.partition("://")[2]:
        text += "/"
    parts = _ADDRESS.fullmatch(text)
    if parts is None or parts[1] not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InvalidInput(f"expected an address that begins with one of {known}; {_got(text)}")
    scheme, authority, path = parts[1], parts[2], parts[3]
    is_web = scheme in WEB_PORTS
    host, port = _web_host(authority, scheme) if is_web else (_bucket(authority), 0)
    path = path.removesuffix("/") if is_prefix else path
    segments = tuple(path.split("/")) if path or not is_prefix else ()
    plain = _decoded(segments, path) if is_web else _undecoded(segments, path)
    for segment in plain:
        _check_segment(segment)
    return Reference(scheme, host, port, plain)


def _bucket(authority: str) -> str:
    if not _BUCKET.fullmatch(authority):
        raise InvalidInput(
            "expected the name of a bucket, in lower case and without a user, behind ://; "
            f"{_got(authority)}"
        )
    return authority


def _web_host(authority: str, scheme: str) -> tuple[str, int]:
    """Return host and port. Raises InvalidInput."""
    parts = _HOST.fullmatch(authority)
    port = int(parts[2] or WEB_PORTS[scheme]) if parts else 0
    if parts is None or port > 65_535 or not _is_host(parts[1]):
        raise InvalidInput(
            "expected a host in lower case, maybe with a port, and without a user, behind ://; "
            f"{_got(authority)}"
        )
    return parts[1], port


def _is_host(host: str) -> bool:
    """Return whether `host` is a name, or an address in its usual form: not `127.1` or `0x7f`."""
    if not all(host.split(".")):
        return False
    if host.startswith("[") or _NUMERIC.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ip_address(host.strip("[]"))) == host.strip("[]")
        except ValueError:
            return False
    return True


def _decoded(segments: Sequence[str], path: str) -> tuple[str, ...]:
    """Return the segments of a web address, decoded once. Raises InvalidInput."""
    if not _PATH.fullmatch(path):
        raise InvalidInput(
            "expected a path of ASCII letters, digits and -._~!$&'()*+,;=:@, all others as %XX, "
            f"without a query; {_got(path)}"
        )
    try:
        return tuple([unquote(segment, errors="strict") for segment in segments])
    except UnicodeDecodeError:
        raise InvalidInput(f"expected a path in UTF-8; {_got(path)}") from None


def _undecoded(segments: tuple[str, ...], path: str) -> tuple[str, ...]:
    if "?" in path or "#" in path:
        raise InvalidInput(f"expected a key without ? and #; {_got(path)}")
    return segments


def _check_segment(segment: str) -> None:
    """Check one step of a path, which is decoded. Raises InvalidInput."""
    fault = ""
    if not segment:
        fault = "no empty step"
    elif segment.partition(";")[0].strip() in (".", ".."):
        fault = "no step that leads to another folder"
    elif "/" in segment or "\\" in segment or "%" in segment:
        fault = "no encoded /, \\ or %"
    elif not segment.isprintable() or unicodedata.normalize("NFKC", segment) != segment:
        fault = "printable characters that stand for themselves alone"
    if fault:
        raise InvalidInput(f"expected {fault} in the path; {_got(segment)}")


def _got(text: str) -> str:
    """Return the end of an error, without what may be a password."""
    return "got one with an @" if "@" in text else f"got {brief(text, 120)}"


class InputSources:
    """The prefixes below which inputs may lie. Any thread."""

    def __init__(self, public: Sequence[str], private: Sequence[str] = ()) -> None:
        """Hold the prefixes; the hosts of `private` may have addresses that are not public.

        Raises InvalidInput: a prefix is no address.
        """
        self._public = [parse_reference(prefix, is_prefix=True) for prefix in public]
        self._private = [parse_reference(prefix, is_prefix=True) for prefix in private]

    def find(self, text: str) -> tuple[Reference, bool]:
        """Return what the address `text` means, and whether its host may be a private one.

        Raises InvalidInput: it is no address, or is below none of the prefixes.
        """
        reference = parse_reference(text)
        if any(map(reference.is_below, self._private)):
            return reference, True
        if any(map(reference.is_below, self._public)):
            return reference, False
        raise InvalidInput(
            "expected an address below one of the prefixes of this server (input_sources); "
            f"{_got(text)}"
        )
