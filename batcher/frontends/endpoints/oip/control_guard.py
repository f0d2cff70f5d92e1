"""Which web pages may load and unload models: none but the server's own.

A browser on a machine that reaches the server lets any page on the web post to it. Under
`model_control: explicit` such a page could unload the models of somebody who only looked at it. Two
header fields, which a page cannot change, tell where a request comes from.

`Origin` is the site of the page; programs that are no browser send none. Accepted are host and port
of the request's own `Host`, and the names of `control_hosts`.

`Host` is the name that the client looked up. A site may point its own name at 127.0.0.1 (DNS
rebinding): then page and server are one origin to the browser, but the name is still the site's.
Accepted are

- `localhost`, names below it, and loopback addresses;
- the name or the address of the setting `host`;
- where the server listens on all addresses, every address: no site owns a name that is one;
- the names of `control_hosts`, for a proxy that passes on its own name;
- no name at all: browsers always send one.

Ports are not compared in `Host`, since containers and tunnels change them. gRPC needs no such rule:
no page can speak it without the server's consent.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from batcher.config.settings import ServerSettings
from batcher.core.error_text import brief
from batcher.errors import Forbidden
from batcher.frontends.endpoints.call import Headers

_ALL_ADDRESSES = ("", "0.0.0.0", "::")
"""Values of the setting `host` under which the server listens on every address."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class ControlGuard:
    """Checks the requests that change models. Reactor thread."""

    def __init__(self, settings: ServerSettings) -> None:
        """Accept the names in `settings`: `host` and `control_hosts`."""
        self._takes_any_address = settings.host in _ALL_ADDRESSES
        self._named = {_plain(name) for name in settings.control_hosts}
        self._hosts = self._named | {_plain(settings.host)}

    def check(self, headers: Headers) -> None:
        """Check where a request comes from; raises Forbidden."""
        own = headers.get(b"host", b"").decode("latin-1")
        host, port = _authority(f"//{own}")
        if own and not self._is_ours(host):
            raise Forbidden(
                "Host: expected this server's address, localhost or a name of `control_hosts`; got "
                f"{brief(own, 200)}"
            )
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(origin.decode("latin-1"), host, port)

    def _check_origin(self, origin: str, host: str, port: int | None) -> None:
        default = _DEFAULT_PORTS.get(origin.partition(":")[0].lower())
        found, found_port = _authority(origin)
        same = found == host and (found_port or default) == (port or default)
        if default is None or not (same or found in self._named):
            raise Forbidden(
                f"Origin: expected this server's own pages or a name of `control_hosts`; got "
                f"{brief(origin, 200)}"
            )

    def _is_ours(self, host: str) -> bool:
        if host == "localhost" or host.endswith(".localhost") or host in self._hosts:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or self._takes_any_address


def _authority(url: str) -> tuple[str, int | None]:
    """Return host and port of `url`; the host is empty where `url` is none."""
    try:
        parts = urlsplit(url)
        return _plain(parts.hostname or ""), parts.port
    except ValueError:
        return "", None


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
