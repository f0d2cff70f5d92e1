"""The ZeroMQ front: opens one address, answers messages, and comes to an end.

All work is done on the reactor's thread, a little in each turn of the loop: so many parts are
taken, so many answers that waited are handed over. The library's own thread does the network.

The end has two steps. `drain` lets nobody in any more, tells each client that the server is about
to end (a message with the id of notices), and waits until clients have their answers and have left.
Those that stay without a request have DRAIN_GRACE_S, in which the last answers go out. `stop`
closes. To close the address sooner would have the library close every connection with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import zmq
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from batcher.config.settings import ServerSettings
from batcher.core.waiters import Waiters
from batcher.errors import ConfigError
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.listening.ending import DRAIN_GRACE_S
from batcher.frontends.listening.sockets import is_served
from batcher.frontends.zeromq.admission import Admission
from batcher.frontends.zeromq.curve import AdmissionSocket, use_keys
from batcher.frontends.zeromq.messages import Messages
from batcher.frontends.zeromq.peers import Counts, Peers
from batcher.frontends.zeromq.port import SocketReader, ZmqPort
from batcher.frontends.zeromq.requests import Requests
from batcher.frontends.zeromq.tensors import TensorAnswers

TURN_PARTS: Final = 192
"""Parts that are taken in one turn of the loop: some 64 requests, which take it a millisecond."""

TURN_PEERS: Final = 64
"""Clients whose waiting answers are looked at in one turn of the loop."""

BLOCKED_LOOK_S: Final = 0.01
"""Seconds between two looks at answers that wait: the library does not tell when a large answer has
gone out.
"""

DRAIN_LOOK_S: Final = 0.02
"""Seconds between two looks whether all clients have what they wait for."""

IPC: Final = "ipc://"


class ZeromqFront:
    """Answers what comes to one ROUTER socket. Reactor thread.

    Attributes:
        address: where clients connect, empty before the front is open.
    """

    _drain_timer: IDelayedCall | None = None
    _blocked_timer: IDelayedCall | None = None

    def __init__(
        self,
        engine: Engine,
        router: Router,
        settings: ServerSettings,
        base: Path,
        reactor: Any,
        answer_log: AnswerLog,
        counts: Counts,
    ) -> None:
        """Store the arguments; nothing starts. Relative paths begin at the folder `base`."""
        self.address = ""
        self._settings = settings
        self._base = base
        self._reactor = reactor
        self._port: Any = None
        self._look_is_due = False
        self._drained = Waiters()
        self._draining_since: float | None = None
        self._tensors = TensorAnswers(engine, answer_log, router.disclosure)
        self._peers = Peers(self._send, counts, settings.max_buffer_bytes)
        self._requests = Requests(self._tensors, router, self._peers, counts)

    @property
    def bound(self) -> tuple[int | str, ...]:
        """The TCP port, or the path of the Unix socket, once it is open."""
        if not self.address:
            return ()
        path = self.address.removeprefix(IPC)
        return (path,) if path != self.address else (int(path.rpartition(":")[2]),)

    def open(self) -> None:
        """Listen.

        Raises:
            ConfigError: a setting cannot be used, or the reactor watches no descriptors.
            OSError: the address cannot be had.
        """
        settings = self._settings
        if not hasattr(self._reactor, "addReader"):
            raise ConfigError(
                f"{settings.origin('zeromq')}: zeromq: expected a reactor that watches "
                f"descriptors; got {type(self._reactor).__name__}"
            )
        self._context = zmq.Context()
        try:
            self._open()
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def _open(self) -> None:
        settings, context = self._settings, self._context
        port = ZmqPort(context, settings.max_body_bytes, settings.write_timeout_s)
        keys = use_keys(port.socket, settings, self._base)
        self._questions = AdmissionSocket(context, Admission(self._has_room, keys))
        arguments = (self._requests.known.kept, self._requests.take, self._refuse, self._note)
        self._messages = Messages(port, self._peers, *arguments)
        self._bound_messages()
        self.address = _bind(port.socket, settings, self._base)
        self._port = port
        looks: list[tuple[Any, Callable[[], object]]] = [
            (port.socket, self._look),
            (port.monitor, self._note),
            (self._questions.socket, self._ask),
        ]
        self._readers = [SocketReader(socket, look) for socket, look in looks]
        for reader in self._readers:
            self._reactor.addReader(reader)
        for _, look in looks:  # what has come before the reactor watched
            look()

    def renew(self, settings: ServerSettings, router: Router) -> None:
        """Go by `settings` and answer by `router` from now on."""
        if self._port is None:
            return
        self._settings = settings
        self._tensors.disclosure = router.disclosure
        self._requests.router = router
        self._requests.known.clear()
        self._peers.max_bytes = settings.max_buffer_bytes
        self._bound_messages()

    def drain(self) -> Deferred[None]:
        """Take no more clients; fires when those that are there have their answers."""
        if self._port is None:
            return succeed(None)
        if self._draining_since is None:
            self._draining_since = self._reactor.seconds()
            for peer in self._peers:
                self._requests.closing(peer)
            self._look_soon()
            self._drain_timer = self._reactor.callLater(DRAIN_LOOK_S, self._look_at_drain)
        return self._drained.wait()

    def stop(self) -> Deferred[None]:
        """Give up all requests and close; fires at once."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        for timer in (self._drain_timer, self._blocked_timer):
            if timer is not None and timer.active():
                timer.cancel()
        for reader in self._readers:
            self._reactor.removeReader(reader)
            reader.close()
        for peer in self._peers:
            self._peers.left(peer.descriptor)
        port.close()
        self._questions.close()
        self._context.destroy(linger=0)
        self._drained.release()
        return succeed(None)

    def _bound_messages(self) -> None:
        self._messages.max_header_bytes = self._settings.max_header_bytes
        self._messages.max_bytes = self._settings.max_body_bytes

    def _send(self, identity: bytes, parts: Any, track: bool) -> Any:
        self._look_soon()  # sending may take note of messages, and the descriptor stays silent
        return self._port.send(identity, parts, track)

    def _refuse(self, identity: bytes, header: bytes) -> None:
        """Answer a client that has chosen its identity, if it reads."""
        self._send(identity, self._requests.refused(header), False)

    def _note(self) -> None:
        self._port.note_connections(self._peers.left)

    def _ask(self) -> None:
        self._note()
        self._questions.look()

    def _has_room(self) -> bool:
        has_place = len(self._port.open_connections) <= self._settings.max_connections
        return has_place and self._draining_since is None

    def _look_soon(self) -> None:
        if not self._look_is_due:
            self._look_is_due = True
            self._reactor.callLater(0, self._look)

    def _look(self) -> None:
        """Take what has come, and hand over what waits."""
        self._look_is_due = False
        if self._port is None:
            return
        if not self._messages.read(TURN_PARTS):
            self._look_soon()
        if self._peers.has_blocked:
            self._flush()

    def _flush(self) -> None:
        if self._port is None:
            return
        self._peers.flush(TURN_PEERS)
        timer = self._blocked_timer
        if self._peers.has_blocked and (timer is None or not timer.active()):
            self._blocked_timer = self._reactor.callLater(BLOCKED_LOOK_S, self._flush)

    def _look_at_drain(self) -> None:
        """End the drain once nothing is due, and clients have left or had time to."""
        assert self._draining_since is not None
        quiet_since = max(self._requests.last, self._draining_since)
        is_quiet = self._reactor.seconds() - quiet_since >= DRAIN_GRACE_S
        if self._peers.is_idle and (is_quiet or not len(self._peers)):
            self._drained.release()
        else:
            self._drain_timer = self._reactor.callLater(DRAIN_LOOK_S, self._look_at_drain)


def _bind(socket: Any, settings: ServerSettings, base: Path) -> str:
    """Open the address of `settings`, and return it as clients write it. Raises OSError."""
    address = str(settings.zeromq)
    path = base / address.removeprefix(IPC) if address.startswith(IPC) else None
    if "[" in address:
        socket.set(zmq.IPV6, 1)
    try:
        if path is not None:
            if path.is_socket() and is_served(path):  # the library would take its place
                raise OSError(f"another program has {path}")
            socket.bind(f"{IPC}{path}")
            path.chmod(int(settings.unix_socket_mode, 8))
        else:
            socket.bind(f"{address.removesuffix(':0')}:*" if address.endswith(":0") else address)
    except (zmq.ZMQError, OSError) as err:
        raise OSError(getattr(err, "errno", 0), f"cannot listen on {address}: {err}") from err
    return os.fsdecode(socket.get(zmq.LAST_ENDPOINT))
