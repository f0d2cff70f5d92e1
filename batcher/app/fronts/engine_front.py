"""The fronts, as the engine sees them: in place of the connections that one process would have.

The service opens, renews and ends its fronts as it does its own connections:

| the service | here |
|---|---|
| opens ports | the socket for fronts is watched; the ports are theirs |
| renews its answering | they get the new settings |
| closes its ports | CLOSE to each; fires when each has said CLOSED, or is gone |
| drains, stops | DRAIN, STOP to each; fires when each has said DRAINED, or is gone |
"""

from __future__ import annotations

import asyncio
import hmac
import os
import pickle
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.app.frontends import Ways
from batcher.app.fronts.front_settings import for_fronts
from batcher.app.fronts.places import Places
from batcher.config.settings import ServerSettings
from batcher.core.forks import bound_address, keep_from_forks
from batcher.core.waiters import Waiters
from batcher.errors import UnknownRoute
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.routing import Route, Router
from batcher.frontends.link.answering import FrontLink
from batcher.frontends.link.channel import Channel
from batcher.frontends.link.counts import Gauges, add_counts, show_gauges
from batcher.frontends.link.frames import Message
from batcher.frontends.link.messages import (
    CLOSE,
    CLOSED,
    COUNTS,
    DRAIN,
    DRAINED,
    LINE,
    SETTINGS,
    STOP,
    TLS,
)
from batcher.frontends.link.models import CallSoon, InferFitting, Key, KnownModels
from batcher.frontends.listening.ending import LAST_ANSWERS_S
from batcher.frontends.listening.sockets import Listening
from batcher.frontends.listening.tls import Tls
from batcher.frontends.web.front import Front
from batcher.serving.metrics import ServerMetrics
from batcher.workers.shared_memory.region import mapped

_log = Logger()

LAST_WORD_S = 2 * LAST_ANSWERS_S
"""Seconds that fronts have to close their connections at the end; they cut clients off before."""


_PEER = Struct("3i")
"""Numbers of a process, its user and its group, as Linux has them in `struct ucred`."""


class EngineFront(Front):
    """Answers the requests of all fronts, and tells them what to go by. Reactor thread."""

    def __init__(self, *arguments: Any) -> None:
        """Begin without fronts; arguments as of `Front`."""
        super().__init__(*arguments)
        self._settings: Callable[[], ServerSettings]
        self._call_soon: CallSoon
        self._models: KnownModels
        self._links: dict[FrontLink, Gauges] = {}
        self._phases: list[Message] = []  # what every front has been told of the end
        self._open: set[FrontLink] = set()  # those that have a port
        self._undrained: set[FrontLink] = set()  # those that may have connections
        self._closed, self._drained = Waiters(), Waiters()
        self._quiet, self._routes = self._answering()

    def attach(
        self, engine: Engine, settings: Callable[[], ServerSettings], call_soon: CallSoon
    ) -> None:
        """Answer by the models of `engine` from now on; `settings` returns those in force."""
        self._settings, self._call_soon = settings, call_soon

        def labels(name: str) -> Iterable[str]:
            return settings().for_model(name).labels

        self._models = KnownModels(engine, labels, call_soon, self._tell_all)

    def joined(self, channel: Channel) -> None:
        """Answer another front, at the other end of `channel`."""
        link = FrontLink(channel, self)
        channel.peer = link
        self._links[link] = Gauges()
        self._open.add(link)
        self._undrained.add(link)
        for message in (self._settings_message(), self._models.message, *self._phases):
            channel.send(message)

    # What a link asks.

    def infer_for(self, generation: int, key: Key) -> InferFitting:
        """Return what answers requests that were decoded for `key` as `generation` describes it."""
        return self._models.infer_for(generation, key)

    def reply(
        self, method: str, pattern: str, call: Call, send: Callable[[Reply], None]
    ) -> Deferred[None]:
        """Give the reply to `call` by that route to `send`; raises UnknownRoute."""
        route = self._routes.get((method, pattern))
        if route is None:  # the settings have changed while the request was on its way
            raise UnknownRoute(f"expected a route of this server, see /docs; got {pattern}")
        return self._quiet.answer(route, call, send)

    def hear(self, link: FrontLink, message: Message) -> None:
        """Hear a message that is about a front as a whole."""
        kind = message[0]
        if kind == COUNTS:
            self._links[link] = add_counts(self._metrics, message)
            show_gauges(self._metrics, list(self._links.values()))
        elif kind == LINE:
            write = self.router.answer_log.write_line
            if write is not None:
                write(message[1])
        elif kind == CLOSED:
            self._open.discard(link)
            self._release()
        elif kind == DRAINED:
            self._undrained.discard(link)
            self._release()

    def lost(self, link: Any) -> None:
        """Forget a front that has ended."""
        self._links.pop(link, None)
        self._open.discard(link)
        self._undrained.discard(link)
        show_gauges(self._metrics, list(self._links.values()))
        self._release()

    # What the service asks.

    def start(self) -> None:
        """Begin: there are no connections to look after, fronts do that."""

    def renew(self, router: Router, site: Any, limits: Any) -> None:
        """Answer by other routes, and have all fronts do so within other limits."""
        super().renew(router, site, limits)
        self._quiet, self._routes = self._answering()
        self._call_soon(lambda: self._tell_all(self._settings_message()))

    def renew_tls(self) -> None:
        """Have all fronts show the certificate that is in the files now."""
        self._tell_all((TLS,))

    def close_ports(self) -> Deferred[None]:
        """Have all fronts close their ports; fires when none is open."""
        self._begin((CLOSE,))
        closed = self._closed.wait()
        self._release()
        return closed

    def drain(self) -> Deferred[None]:
        """Have every connection end with its answers; fires when all are closed."""
        self._begin((DRAIN,))
        drained = self._drained.wait()
        self._release()
        return drained

    def stop(self) -> Deferred[None]:
        """Have every connection that is left closed; fires when all are, in `LAST_WORD_S` at most.

        A front that hangs cannot hold up the end.
        """
        self._begin((STOP,))
        drained = self._drained.wait()
        late = self._clock.callLater(LAST_WORD_S, self._drained.release)
        self._release()

        def ended(_: None) -> None:
            if late.active():
                late.cancel()

        return drained.addCallback(ended)

    def _begin(self, phase: Message) -> None:
        if phase not in self._phases:
            self._phases.append(phase)
            self._tell_all(phase)

    def _release(self) -> None:
        if not self._open and (CLOSE,) in self._phases:
            self._closed.release()
        if not self._undrained and ((DRAIN,) in self._phases or (STOP,) in self._phases):
            self._drained.release()

    def _tell_all(self, message: Message) -> None:
        for link in self._links:
            link.channel.send(message)

    def _settings_message(self) -> Message:
        return SETTINGS, pickle.dumps(for_fronts(self._settings()))

    def _answering(self) -> tuple[Router, dict[tuple[str, str], Route]]:
        """Return what answers whole requests; fronts count them, and write their marks."""
        router = self.router
        log = AnswerLog(self._clock, ServerMetrics(), None, router.answer_log.model_named)
        quiet = Router(router.routes, log, router.disclosure)
        return quiet, {(route.method, route.pattern): route for route in router.routes}


class LinkPort:
    """Takes the connections of fronts, in place of ports. Reactor thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, places: Places, front: EngineFront) -> None:
        """Take fronts for `front`; `open` begins."""
        self._loop, self._places, self._front = loop, places, front
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self) -> LinkPort:
        """Begin to take fronts; return the port itself."""
        keep_from_forks(addresses=(bound_address(self._places.link),))
        self._loop.add_reader(self._places.link.fileno(), self._accept)
        return self

    def close(self) -> Deferred[None]:
        """Have all fronts close their ports."""
        return self._front.close_ports()

    def renew(self, tls: Tls) -> None:
        """Have all fronts show another certificate, which is in the same files."""
        self._front.renew_tls()

    def _accept(self) -> None:
        with suppress(OSError):  # it has ended again
            connection, _ = self._places.link.accept()
            if _user_of(connection) != os.geteuid():
                connection.close()  # of somebody who says nothing, and would keep a descriptor
                return
            connection.setblocking(False)
            self._loop.add_reader(connection.fileno(), self._greet, connection)

    def _greet(self, connection: socket.socket) -> None:
        """Hear who has connected: a front says the secret, and passes its memory."""
        self._loop.remove_reader(connection.fileno())
        files: list[int] = []
        try:
            said, files, _, _ = socket.recv_fds(connection, 1 << 10, 2)
            if not hmac.compare_digest(said, self._places.secret) or len(files) != 2:
                raise OSError("another program")
            # The front writes into the first, and reads the second.
            incoming, outgoing = mapped(files.pop(0)), mapped(files.pop(0))
        except (OSError, ValueError) as err:
            _log.warn("a connection that is no front's was closed: {reason}", reason=err)
            for each in files:
                os.close(each)
            connection.close()
            return
        channel = Channel(outgoing, incoming, self._loop.call_soon)
        self._front.joined(channel)
        protocol: Any = channel  # by its methods
        taking = self._loop.connect_accepted_socket(lambda: protocol, connection)
        task = self._loop.create_task(taking)
        self._tasks.add(task)
        task.add_done_callback(partial(_taken, self._tasks, channel))


def _user_of(connection: socket.socket) -> int:
    """Return the number of the user whose program has connected."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    user: int = _PEER.unpack(told)[1]
    return user


def _taken(tasks: set[asyncio.Task[Any]], channel: Channel, task: asyncio.Task[Any]) -> None:
    tasks.discard(task)
    if task.cancelled() or task.exception() is not None:
        channel.connection_lost(None)


def engine_ways(
    loop: asyncio.AbstractEventLoop, places: Places, stop: Callable[[], object]
) -> Ways:
    """Return the ways in of an engine: by fronts.

    `stop` is called when the process that has started this one is gone.
    """

    def orphaned() -> None:
        loop.remove_reader(places.alive)
        stop()

    def listen(
        front: Front, listeners: list[socket.socket], tls: Tls | None
    ) -> Deferred[Listening]:
        for listener in listeners:
            listener.close()  # each front has its own
        assert isinstance(front, EngineFront), "the ways have made it"
        loop.add_reader(places.alive, orphaned)
        return succeed(LinkPort(loop, places, front).open())

    return Ways(listen, EngineFront, lambda settings, base: places.listeners[0])
