"""Environment variables that Kubernetes and Docker set, and that are no settings of this server.

In every container of a namespace Kubernetes sets variables for each of its Services. For a Service
called `batcher` their names begin as the variables of this server do, with `BATCHER_`. Docker's
`--link` sets similar variables.

| who sets it | variable | example of a value |
|---|---|---|
| Kubernetes | `BATCHER_SERVICE_HOST`, `BATCHER_SERVICE_PORT` | `10.0.0.7`, `8080` |
| Kubernetes | `BATCHER_SERVICE_PORT_HTTP`, for a port called `http` | `8080` |
| both | `BATCHER_PORT` | `tcp://10.0.0.7:8080` |
| both | `BATCHER_PORT_8080_TCP` | `tcp://10.0.0.7:8080` |
| both | the same with `_PROTO`, `_PORT` and `_ADDR` behind it | `tcp`, `8080`, `10.0.0.7` |
| Docker | the same with `_START`, `_END`, `_PORT_START` and `_PORT_END` | `tcp://10.0.0.7:8080` |
| Docker | `BATCHER_NAME` | `/shop/batcher` |
| Docker | `BATCHER_ENV_…`, each variable of the linked container | anything |

A Service called `batcher-grpc` has the same variables with `BATCHER_GRPC_` in front, and among them
is `BATCHER_GRPC_PORT`. So the value decides there: `tcp://…` is no port of a setting. Every other
variable that begins with `BATCHER_` is a setting, and one with a mistyped name is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SERVICE = re.compile(r"BATCHER(_[A-Z0-9_]*)?_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)", re.ASCII)
_PORT = re.compile(r"BATCHER(_[A-Z0-9_]*)?_PORT", re.ASCII)
_NUMBERED_PORT = re.compile(
    r"BATCHER(_[A-Z0-9_]*)?_PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_ADDR|(_PORT)?(_START|_END)?)",
    re.ASCII,
)
_URL = re.compile(r"(tcp|udp|sctp)://", re.ASCII)
_LINK_NAME = re.compile(r"(BATCHER(?:_[A-Z0-9_]*)?_)NAME", re.ASCII)
_LINK = re.compile(r"/[^/]+/[^/]+")


def is_service_link(name: str, environment: Mapping[str, str]) -> bool:
    """Return whether Kubernetes or Docker set the variable `name` for a service or a link."""
    if "__" in name:  # a step into a section of the settings
        return False
    value = environment[name]
    return bool(
        _SERVICE.fullmatch(name)
        or _NUMBERED_PORT.fullmatch(name)
        or (_PORT.fullmatch(name) and _URL.match(value))
        or (_LINK_NAME.fullmatch(name) and _LINK.fullmatch(value))
        or _is_of_link(name, environment)
    )


def _is_of_link(name: str, environment: Mapping[str, str]) -> bool:
    """Return whether `name` is a linked container's own variable: beside it stands the link."""
    prefix, found, _ = name.partition("ENV_")
    return bool(found) and _LINK.fullmatch(environment.get(f"{prefix}NAME", "")) is not None
