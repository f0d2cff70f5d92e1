"""The kinds of value that settings have, the mark of a setting, and the base of every section.

A type that ends in `OrNone` accepts 0, which means "none": no time limit, no such rule.
"""

from __future__ import annotations

import re
from enum import Enum
from ipaddress import ip_address
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field

from batcher.config.reading import Integer, Number, refuse_boolean
from batcher.core.network_addresses import Address, is_never_asked, is_public
from batcher.core.references import BUCKETS, parse_reference
from batcher.core.registry_address import registry_address
from batcher.errors import InvalidInput

Seconds = Annotated[Number, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrNone = Annotated[Number, Field(ge=0, le=86_400, allow_inf_nan=False)]
Milliseconds = Annotated[Number, Field(gt=0, le=86_400_000, allow_inf_nan=False)]
Ttl = Annotated[Number, Field(ge=1, le=86_400, allow_inf_nan=False)]
MillisecondsOrNone = Annotated[Number, Field(ge=0, le=86_400_000, allow_inf_nan=False)]
Count = Annotated[Integer, Field(ge=1, le=1 << 31)]
Bytes = Annotated[ByteSize, refuse_boolean("a number of bytes, such as 64MiB"), Field(ge=1)]


def _path(value: str) -> str:
    if not re.fullmatch(r"/[^{}<>?#%\s]*", value):
        raise ValueError("a path such as /health, without a query and without percent-encoding")
    return value


def _key(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("a key of visible ASCII characters, which a header can carry")
    return value


def _origin(value: str) -> str:
    if value != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", value):
        raise ValueError("* or an origin such as https://app.example, without a path")
    return value


Origin = Annotated[str, AfterValidator(_origin)]


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]", value):
        raise ValueError(
            "a name or an address, without scheme and port, such as models.example.com"
        )
    return value.strip("[]")


def _input_source(value: str) -> str:
    literal = _input_prefix(value)
    if literal is not None and not is_public(literal):
        raise ValueError("a host with a public address, or the prefix in private_input_sources")
    return value


def _private_input_source(value: str) -> str:
    literal = _input_prefix(value)
    if value.startswith(tuple(f"{bucket}://" for bucket in BUCKETS)):
        raise ValueError("https:// or http://; where a bucket is, the environment says")
    if literal is not None and is_never_asked(literal):
        raise ValueError("an address that is not link-local, of a metadata service or for many")
    return value


def _input_prefix(value: str) -> Address | None:
    """Return the address that the host of a prefix is; raises ValueError: it is no prefix."""
    try:
        return parse_reference(value, is_prefix=True).literal
    except InvalidInput as err:
        raise ValueError(str(err).removeprefix("expected ").partition("; got")[0]) from None


def _zeromq(value: str) -> str:
    tcp = r"tcp://(\*|[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}"
    if not re.fullmatch(rf"{tcp}|ipc://[^@*\s][^\s]*", value):
        raise ValueError(
            "tcp:// with an address in numbers and a port, such as tcp://127.0.0.1:8082, or ipc:// "
            "and a path"
        )
    return value


def is_reached_from_elsewhere(address: str) -> bool:
    """Return whether other machines reach `address`, which is one of ZeroMQ."""
    if not address.startswith("tcp://"):
        return False
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return not ip_address(host).is_loopback
    except ValueError:  # `*`: every address of this machine
        return True


def _registry(value: str) -> str:
    try:
        kind = registry_address(value).kind
    except ValueError:
        kind = ""
    if kind in ("", "srv"):
        raise ValueError(
            "consul://, etcd://, zk:// or directory:// with a host and the name of a service, such "
            "as consul://localhost:8500/batcher"
        )
    return value


def _own_address(value: str) -> str:
    parts = urlsplit(value)
    is_port = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", parts.netloc)
    if parts.scheme not in ("http", "https") or not is_port or parts.path.strip("/"):
        raise ValueError("http:// or https:// with a host and a port, such as http://10.0.0.7:8080")
    return value


def _repositories(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise ValueError("a folder, the address of a store, or a list of these")


def _mode(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError('octal digits in quotes, such as "0660"')
    return value


RoutePath = Annotated[str, AfterValidator(_path)]
QuotaKey = Annotated[str, AfterValidator(_key)]
InputSource = Annotated[str, AfterValidator(_input_source)]
PrivateInputSource = Annotated[str, AfterValidator(_private_input_source)]
RegistryPlace = Annotated[str, AfterValidator(_registry)]
OwnAddress = Annotated[str, AfterValidator(_own_address)]
ZeromqAddress = Annotated[str, AfterValidator(_zeromq)]
HostName = Annotated[str, AfterValidator(_host)]
FileMode = Annotated[str, BeforeValidator(_mode)]
Repositories = Annotated[str | tuple[str, ...] | None, BeforeValidator(_repositories)]

MIB = 1 << 20


class TakesEffect(Enum):
    """When a changed value of a setting takes effect: the mark of the setting's field."""

    AT_RELOAD = "at the next reload"
    AT_RELOAD_WITHOUT_GRPC = (
        "at the next reload; while a port of gRPC or ZeroMQ is open, at the next start"
    )
    AT_START = "at the next start"


Value = TypeVar("Value")
Live = Annotated[Value, TakesEffect.AT_RELOAD]
LiveWithoutGrpc = Annotated[Value, TakesEffect.AT_RELOAD_WITHOUT_GRPC]
AtStart = Annotated[Value, TakesEffect.AT_START]


class Section(BaseModel):
    """A mapping of known keys, which never changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
