"""The ways in to one server: HTTP and, where the settings have addresses, gRPC and ZeroMQ.

Beside them there may be a port on which a balancer learns the server's weight. The service opens,
renews and ends all of them together:

    open ──► renew, at each reload ──► close ──► drain ──► stop

`close` may come at any time, also while `open` still waits for a port; `open` then fails.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort

from batcher.app.jobs.server_jobs import ServerJobs
from batcher.config.settings import ServerSettings
from batcher.core.forks import bound_address, forget, keep_from_forks
from batcher.core.installing import how_to_install
from batcher.errors import ConfigError, Draining
from batcher.frontends.agent_check import listen_for_checks
from batcher.frontends.endpoints.answer_log import AnswerLog, WriteLine
from batcher.frontends.endpoints.cors import Cors
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.engine import model_named
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.listening.sockets import Listening, address_of, open_sockets
from batcher.frontends.listening.tls import Tls, tls_files
from batcher.frontends.web.front import Front
from batcher.frontends.web.klein_app import klein_site
from batcher.frontends.web.limits import Limits
from batcher.frontends.web.listening.twisted_ports import Listen, twisted_listen
from batcher.serving.metrics import ServerMetrics
from batcher.serving.monitoring.server_weight import ServerWeight
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer

if TYPE_CHECKING:
    from batcher.frontends.grpc.front import RpcFront
    from batcher.frontends.zeromq.front import ZeromqFront


class Ways(NamedTuple):
    """How clients come in by HTTP.

    Attributes:
        listen: lets the front take connections.
        front: makes what has all connections, of the arguments of `Front`.
        sockets: opens the ports, or returns such as are open already.
    """

    listen: Listen
    front: Callable[[Router, Any, Limits, Any, ServerMetrics], Front] = Front
    sockets: Callable[[ServerSettings, Path], list[socket.socket]] = open_sockets


class Answering(NamedTuple):
    """What HTTP requests are answered by; it follows from the settings.

    Attributes:
        router: finds the endpoint of a request.
        site: a `twisted.web` site that answers every other request, through Klein.
        limits: bounds of sizes, times and numbers.
    """

    router: Router
    site: Any  # only `frontends/web` may name the classes of twisted.web
    limits: Limits


class Frontends:
    """HTTP, gRPC and ZeroMQ in front of one model server. Reactor thread.

    Attributes:
        front: all connections of HTTP.
        burst: the front's method of that name: calls a function and sends what that function
            answers in one burst.
        address: where clients connect, in words; empty before the ports are open.
    """

    _closed = False
    _bound: tuple[int | str, ...] = ()
    """TCP ports and the path of the Unix socket, once they are open."""

    _checks: Sequence[IListeningPort] = ()
    """Ports on which a balancer asks for the weight."""

    _grpc: RpcFront | None = None
    _zeromq: ZeromqFront | None = None
    _listening: Listening | None = None

    def __init__(
        self,
        server: ModelServer,
        repository: ModelRepository,
        settings: ServerSettings,
        base: Path,
        reactor: Any,
        ways: Ways | None,
        write_access_line: WriteLine | None,
        jobs: ServerJobs | None = None,
    ) -> None:
        """Wire the parts; nothing is open yet. The arguments are those of the service."""
        self.address = ""
        self._server = server
        self._repository = repository
        self._settings, self._jobs = settings, jobs
        self._base = base.absolute()  # a model may change the working directory
        self._reactor = reactor
        self._ways = ways or Ways(twisted_listen(reactor))
        self._write_access_line = write_access_line
        log_line, named = self._line_writer(settings), partial(model_named, server)
        self._answer_log = AnswerLog(reactor, server.metrics, log_line, named)
        self.front = self._ways.front(*self.answering(settings), reactor, server.metrics)
        # Bound once: every way back from a worker goes through this method.
        self.burst = self.front.burst

    def _line_writer(self, settings: ServerSettings) -> WriteLine | None:
        return self._write_access_line if settings.access_log else None

    def answering(self, settings: ServerSettings) -> Answering:
        """Return what HTTP requests are to be answered by under `settings`; nothing changes yet."""
        disclosure = disclosure_of(settings, self._server.seconds)
        board, batches = (self._jobs.board, self._jobs.batches) if self._jobs else (None, None)
        table = routes(self._server, self._repository, settings, disclosure, board, batches)
        cors = Cors(settings.cors_origins) if settings.cors_origins else None
        router = Router(table, self._answer_log, disclosure, cors)
        limits = Limits.from_settings(settings)
        return Answering(router, klein_site(router, limits.body), limits)

    def read_tls(self) -> Tls | None:
        """Return the certificate's files, which are checked; None without TLS.

        Raises:
            ConfigError: the files are not a certificate and its key.
        """
        return tls_files(self._settings, self._base)

    def open(self) -> Deferred[None]:
        """Open all ports, that of gRPC first; fires when clients can connect to each.

        Fails with ConfigError or OSError where a port cannot be had, and with Draining if `close`
        was called meanwhile.

        Raises:
            ConfigError: the files are not a certificate and its key.
        """
        self.front.start()
        tls = self.read_tls()
        opening = self._open_grpc().addCallback(lambda _: self._open_zeromq())
        return opening.addCallback(lambda _: self._open_http(tls)).addCallback(self._opened)

    def _open_grpc(self) -> Deferred[None]:
        settings = self._settings
        if settings.grpc_port is None:
            return succeed(None)
        try:
            # Here, since gRPC is an extra that most servers are installed without.
            from batcher.frontends.grpc.front import RpcFront
        except ImportError as err:
            raise _missing(settings, "grpc_port", "grpc", err) from err
        server, log = self._server, self._answer_log
        self._grpc = RpcFront(server, self._repository, settings, self._base, server.clock, log)
        return self._grpc.open()

    def _open_zeromq(self) -> None:
        settings = self._settings
        if settings.zeromq is None:
            return
        self._check_open()
        try:
            # Here, since ZeroMQ is an extra as well.
            from batcher.frontends.zeromq.front import ZeromqFront
        except ImportError as err:
            raise _missing(settings, "zeromq", "zeromq", err) from err
        server, router = self._server, self.front.router
        where = (settings, self._base, self._reactor)
        front = ZeromqFront(server, router, *where, self._answer_log, server.metrics.zeromq)
        front.open()
        self._zeromq = front

    def _open_http(self, tls: Tls | None) -> Deferred[Listening]:
        self._check_open()
        checks = self._open_checks()
        listeners = self._ways.sockets(self._settings, self._base)
        addresses = [address_of(listener, tls is not None) for listener in listeners]
        others = [each for each in (self._grpc, self._zeromq) if each is not None]
        addresses += [each.address for each in others]
        self.address = " and ".join(addresses)
        bound = [address for each in others for address in each.bound]
        self._bound = (*map(bound_address, listeners), *bound, *checks)
        keep_from_forks(addresses=self._bound)
        return self._ways.listen(self.front, listeners, tls)

    def _open_checks(self) -> tuple[int, ...]:
        """Tell the weight to whoever asks, if there is a port for it; return that port."""
        port = self._settings.agent_check_port
        if port is None:
            return ()
        weight = ServerWeight(self._server)
        self._checks = listen_for_checks(self._reactor, self._settings.host, port, weight.percent)
        return (port,)

    def _opened(self, listening: Listening) -> None:
        self._listening = listening
        if self._closed:
            listening.close()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Draining("the server was stopped before it had started")

    def renew(self, settings: ServerSettings, answering: Answering) -> None:
        """Answer by `answering`, made of `settings`, from now on, also on open connections."""
        self._settings = settings
        self._answer_log.write_line = self._line_writer(settings)
        self.front.renew(*answering)
        if self._grpc is not None:
            self._grpc.renew(settings)
        if self._zeromq is not None:
            self._zeromq.renew(settings, answering.router)

    def renew_tls(self, tls: Tls) -> None:
        """Show the certificate in the files of `tls` to clients that connect from now on."""
        if self._listening is not None:
            self._listening.renew(tls)
        if self._grpc is not None:
            self._grpc.renew_tls(tls)

    def close(self) -> Deferred[Any]:
        """Take no more connections of HTTP; fires when no port is open."""
        self._closed = True
        # A server that takes this one's place may ask for the same port.
        for port in self._checks:
            maybeDeferred(port.stopListening)
        return (
            maybeDeferred(self._listening.close) if self._listening is not None else succeed(None)
        )

    def drain(self) -> Deferred[Any]:
        """Take no more requests; fires when every client has its answers and all are closed."""
        connections = self.front.drain()
        calls = self._grpc.drain() if self._grpc is not None else succeed(None)
        requests = self._zeromq.drain() if self._zeromq is not None else succeed(None)
        return DeferredList([connections, calls, requests])

    def stop(self) -> Deferred[Any]:
        """Cut off clients that are still there, after what is written; fires when none is left."""
        calls = self._grpc.stop() if self._grpc is not None else succeed(None)
        requests = self._zeromq.stop() if self._zeromq is not None else succeed(None)
        stopped = DeferredList([self.front.stop(), calls, requests])
        return stopped.addCallback(lambda _: forget(addresses=self._bound))


def _missing(settings: ServerSettings, name: str, extra: str, reason: ImportError) -> ConfigError:
    """Return the error of the setting `name`, which needs an extra that is not installed."""
    return ConfigError(
        f"{settings.origin(name)}: {name}: expected the extra {extra}; got none: {reason}. It "
        f"comes with {how_to_install(extra)}"
    )
