"""Keeps this server listed in a registry: from when it is ready until it is to stop.

    SERVING -> announce, each third of the TTL -> LEAVING or DRAINING -> withdraw -> ports close

A server that dies says nothing more, and its entry ends with its TTL. A server that is not ready is
announced with weight 0, so that nobody is sent to it.

The registry is asked on a thread, one call at a time. So a registry that is away costs the server
nothing but a line in the log, one when it goes and one when it is back; the next call is made when
it is due. At the end a registry has `WITHDRAW_LIMIT_S` to hear of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from batcher.batching.worker import CallFromThread
from batcher.client.listed_server import ListedServer
from batcher.client.registries.registry import Registry, registry_of
from batcher.config.settings import ServerSettings
from batcher.core.error_text import message
from batcher.core.installing import how_to_install
from batcher.core.registry_address import RegistryAddress, registry_address, without_secrets
from batcher.core.waiters import Waiters
from batcher.errors import ConfigError
from batcher.serving.monitoring.server_weight import ServerWeight
from batcher.serving.server import ModelServer
from batcher.workers.daemon_threads import start_daemon

WITHDRAW_LIMIT_S = 1.0
"""Seconds that the end of a server waits for its registry: one that is there takes milliseconds."""

ANNOUNCEMENTS_PER_TTL = 3
"""Two of them may be lost before the entry ends."""

_log = Logger()


class Listing(Protocol):
    """The server's entry in a registry. Reactor thread."""

    def begin(self, address: str) -> None:
        """Announce the server, which listens at `address`, from now on."""

    def end(self) -> Deferred[None]:
        """Withdraw the entry; fires when that is done, or has taken too long."""


class NotListed:
    """The entry of a server that has no registry: there is none."""

    def begin(self, address: str) -> None:
        """Do nothing."""

    def end(self) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)


class State(NamedTuple):
    """What of the server's entry changes.

    Attributes:
        weight: percentage of its usual load that the server should get; 0 is not ready.
        models: names of the models that take requests.
    """

    weight: float
    models: frozenset[str]


class Registering:
    """Keeps one server listed. Reactor thread, where nothing else is said.

    Args:
        registry: where to announce the server.
        own: returns where clients find the server, from where it listens; runs on the thread.
        state: returns the rest of the entry, as it is now.
        ttl_s: seconds after which the registry forgets a server that says nothing.
        clock: tells the time.
        call_from_thread: calls a function on the reactor's thread.
    """

    def __init__(
        self,
        registry: Registry,
        own: Callable[[str], str],
        state: Callable[[], State],
        ttl_s: float,
        clock: IReactorTime,
        call_from_thread: CallFromThread,
    ) -> None:
        """Ask nobody yet; the class says what the arguments are."""
        self._registry = registry
        self._own = own
        self._state = state
        self._ttl_s = ttl_s
        self._clock = clock
        self._cross = call_from_thread
        self._listens_at = self._listed_as = ""
        self._timer: IDelayedCall | None = None
        self._is_asking = self._is_listed = self._is_told = False
        self._is_ending = self._is_withdrawn = self._is_over = False
        self._ended = Waiters()

    def begin(self, address: str) -> None:
        """Announce the server, which listens at `address`, from now on."""
        self._listens_at = address
        self._announce()

    def end(self) -> Deferred[None]:
        """Withdraw the entry; fires when that is done, or has taken `WITHDRAW_LIMIT_S`."""
        if not self._is_ending:
            self._is_ending = True
            is_unknown = self._is_asking and not self._is_told
            self._is_over = not (self._is_listed or is_unknown)  # there is nothing to wait for
            if self._timer is not None:
                self._timer.cancel()
                self._timer = self._clock.callLater(WITHDRAW_LIMIT_S, self._over)
                if not self._is_asking:  # else once that call has come back
                    self._withdraw()
        return succeed(None) if self._is_over else self._ended.wait()

    def _announce(self) -> None:
        self._timer = self._clock.callLater(self._ttl_s / ANNOUNCEMENTS_PER_TTL, self._announce)
        if not self._is_asking:  # a registry that is slow gets no second call beside the first
            self._ask(partial(self._say, self._state()))

    def _withdraw(self) -> None:
        self._is_withdrawn = True
        self._ask(self._leave)

    def _say(self, state: State) -> None:
        """Announce the server. A thread of its own."""
        self._listed_as = self._own(self._listens_at)
        self._registry.announce(ListedServer(self._listed_as, *state), self._ttl_s)

    def _leave(self) -> None:
        """Withdraw the entry. A thread of its own."""
        try:
            self._registry.withdraw()
        finally:
            self._registry.close()

    def _ask(self, call: Callable[[], None]) -> None:
        self._is_asking = True
        try:
            start_daemon(partial(self._run, call), "registry")
        except RuntimeError as err:  # the system has no more threads
            self._answered(str(err))

    def _run(self, call: Callable[[], None]) -> None:
        """Ask the registry. A thread of its own."""
        reason = ""
        try:
            call()
        except Exception as err:  # whatever a registry, or a library for one, comes up with
            reason = without_secrets(message(err)) or type(err).__name__
        with suppress(RuntimeError):  # the reactor has ended
            self._cross(self._answered, reason)

    def _answered(self, reason: str) -> None:
        """Take note of how a call ended; `reason` is why it failed, empty if it did not."""
        self._is_asking = False
        if not self._is_ending:
            self._tell(reason)
        elif self._is_withdrawn:
            self._over()
        else:
            self._withdraw()

    def _tell(self, reason: str) -> None:
        """Log a change, and the first answer."""
        was, self._is_listed = self._is_listed, not reason
        place = self._registry.place
        if self._is_listed and not was:
            _log.info("listed in {place} as {address}", place=place, address=self._listed_as)
        elif reason and (was or not self._is_told):
            _log.warn("not listed in {place}: {reason}", place=place, reason=reason)
        self._is_told = True

    def _over(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._is_over = True
        self._ended.release()


def listing_of(
    settings: ServerSettings, server: ModelServer, call_from_thread: CallFromThread
) -> Listing:
    """Return the entry of `server` in the registry of the settings.

    Raises:
        ConfigError: an extra is missing.
    """
    if settings.registry is None:
        return NotListed()
    address, weight = registry_address(settings.registry), ServerWeight(server)
    registry = _registry(settings, address)

    def state() -> State:
        ready = [each.spec.name for each in server if each.accepts]
        return State(weight.percent(), frozenset(ready))

    own = partial(advertised, settings, address)
    ttl_s = settings.registry_ttl_s
    return Registering(registry, own, state, ttl_s, server.clock, call_from_thread)


def _registry(settings: ServerSettings, address: RegistryAddress) -> Registry:
    try:
        return registry_of(address)
    except ModuleNotFoundError as err:
        raise ConfigError(
            f"{settings.origin('registry')}: registry: expected the extra zookeeper; got no "
            f"{err.name}. It comes with {how_to_install('zookeeper')}"
        ) from err


def advertised(settings: ServerSettings, registry: RegistryAddress, ports: str) -> str:
    """Return where clients find the server. A thread of its own.

    It listens at `ports`, with ` and ` between them. The first that others reach counts.

    Raises:
        ConfigError: clients cannot find it there.
    """
    if settings.advertise is not None:
        return settings.advertise
    is_local = all(_is_loopback(each) for each, _ in registry.hosts)
    for port in ports.split(" and "):
        parts = urlsplit(port)
        host = parts.hostname or ""
        if parts.scheme in ("http", "https") and (is_local or not _is_loopback(host)):
            break
    else:
        raise ConfigError(
            "advertise, host: expected an address that clients on other machines reach; got "
            f"{ports!r}, where the server listens"
        )
    if host not in ("0.0.0.0", "::"):
        return port
    host = own_address(registry)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def own_address(registry: RegistryAddress) -> str:
    """Return the address of this machine by which it reaches `registry`; nothing is sent.

    A thread of its own.
    """
    host, port = registry.hosts[0]
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as made:
            made.connect(where)
            found: str = made.getsockname()[0]
            return found
    except OSError:
        return socket.gethostname()
