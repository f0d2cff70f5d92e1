"""`BatcherService`: everything wired together, with the states of its life as a table.

It runs under `twist` and `twistd`, inside another Twisted program on that program's reactor, and
under `serve.py`, which hands it a faster listener. Starting listens first, so that `/livez` and
`/readyz` answer while models load. Stopping lets every connection end with the answers that are due
on it, within `drain_timeout`; a model that hangs delays nothing. While it serves, `reload` has it
go by other settings: everything is made ready beside what serves, then all changes in one turn of
the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.app.reloading import Read, Reloads
from batcher.batching.worker import CallFromThread
from batcher.config.changes import changed_settings, restart_reasons
from batcher.config.settings import ServerSettings
from batcher.errors import BatcherError, ConfigError, Draining, ModelLoadError, ReloadRefused
from batcher.frontends.endpoints.answer_log import AnswerLog, WriteLine
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.web.front import Front
from batcher.frontends.web.klein_app import klein_site
from batcher.frontends.web.limits import Limits
from batcher.frontends.web.listening.sockets import (
    Listen,
    Listening,
    Tls,
    address_of,
    open_sockets,
    tls_files,
)
from batcher.frontends.web.listening.twisted_ports import twisted_listen
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer
from batcher.serving.stages.quotas import quotas_of

if TYPE_CHECKING:
    from twisted.web.server import Site

    from batcher.frontends.grpc.front import RpcFront


class State(Enum):
    """Where the service is in its life."""

    NEW = "new"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


STATES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.SERVING, State.DRAINING}),
    State.SERVING: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}
"""From each state, the states that may follow."""


class BatcherService(MultiService):
    """The whole server as a Twisted service. Reactor thread.

    Attributes:
        settings: what it goes by.
        server: the models.
        repository: where they come from.
        front: the connections.
        ready: fires with None once every model has loaded; fails with the first reason if one could
            not.
        address: where it listens, once it does.
    """

    def __init__(
        self,
        settings: ServerSettings,
        base: Path,
        reactor: Any,
        *,
        call_from_thread: CallFromThread | None = None,
        call_soon: Callable[..., object] | None = None,
        listen: Listen | None = None,
        progress: Callable[[str, str], None] = lambda title, text: None,
        write_access_line: WriteLine | None = None,
    ) -> None:
        """Wire everything; nothing starts.

        Args:
            settings: the whole configuration.
            base: the folder that relative paths in it start from.
            reactor: the program's reactor: time, threads and, without `listen`, ports.
            call_from_thread: a cheaper way back from threads than the reactor's own, where there is
                one.
            call_soon: a cheaper way to call in the next turn of the loop than a timer of no delay,
                where there is one.
            listen: a faster way to listen than the reactor's own, where there is one.
            progress: told a model's title and what is being done with it.
            write_access_line: gets the lines of the access log.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # mypy-zope sees no stub
        self.settings = settings
        self._base = base
        self._reactor = reactor
        self._write_access_line = write_access_line
        self._listen = listen or twisted_listen(reactor)
        self._log = Logger()
        self._listening: Listening | None = None
        self._rpc: RpcFront | None = None
        self._stopped: list[Deferred[None]] = []
        self.state = State.NEW
        self.ready: Deferred[None] = Deferred()
        self.address = ""
        cross, soon = (
            call_from_thread or reactor.callFromThread,
            call_soon or partial(reactor.callLater, 0),
        )
        self.server = ModelServer(
            reactor,
            self._in_a_burst(cross),
            settings,
            progress=progress,
            call_soon=self._in_a_burst(soon),
        )
        self.repository = ModelRepository(self.server, settings, base)
        self._reloads = Reloads(self._change, self.server.metrics)
        self._journal = AnswerLog(
            reactor, self.server.metrics, write_access_line if settings.access_log else None
        )
        self.front = Front(*self._answering(settings), reactor, self.server.metrics)

    def _answering(self, settings: ServerSettings) -> tuple[Router, Site, Limits]:
        """Return what connections are answered by under `settings`."""
        router = Router(
            routes(self.server, self.repository, settings),
            self._journal,
            settings.expose_model_errors,
        )
        limits = Limits.from_settings(settings)
        return router, klein_site(router, limits.body), limits

    def _in_a_burst(self, call: Callable[..., object]) -> Callable[..., None]:
        """Return `call`, a way to have a function called later, such that what that function answers leaves in one burst."""

        def burst(function: Callable[..., object], *arguments: object) -> None:
            call(self.front.burst, function, *arguments)

        return burst

    def startService(self) -> None:
        """Listen, then load every model; `ready` tells how that went."""
        super().startService()  # type: ignore[no-untyped-call]  # as above
        self._become(State.STARTING)
        self.front.start()
        opening = (
            maybeDeferred(self._open)
            .addCallback(self._opened)
            .addCallbacks(self._loaded, self._failed)
        )
        opening.addErrback(lambda failure: self._log.failure("starting failed", failure))

    def stopService(self) -> Deferred[None]:
        """Stop as the module says; fires when nothing is left."""
        stopped: Deferred[None] = Deferred()
        if self.state is State.STOPPED:
            stopped.callback(None)
            return stopped
        self._stopped.append(stopped)
        if self.state is not State.DRAINING:
            self._drain()
            self._reloads.open()  # who waits for the start is refused
        return stopped

    def reload(self, read: Read) -> Deferred[None]:
        """Go by the settings that `read` returns, and by what has changed in the models' folders; fires when that is so.

        What has not changed is not touched, and no request is lost. If anything cannot be (the
        settings are wrong, one needs a restart, a model cannot be loaded) nothing changes, and the
        Deferred fails with ReloadRefused or ConfigError, which name every reason. It waits for the
        start to end and for the reload before it; all that wait share the next one.
        """
        return self._reloads.ask(read)

    def _change(self, read: Read) -> Deferred[list[str]]:
        self._check_serving()
        return self.repository.alone(lambda: self._change_alone(read()))

    def _change_alone(self, settings: ServerSettings) -> Deferred[list[str]]:
        rollout = self.repository.rollout(settings)
        reasons = restart_reasons(self.settings, settings) + rollout.reasons
        try:
            tls = tls_files(self.settings, self._base)
        except ConfigError as err:
            reasons.append(str(err))
        if reasons:
            raise ReloadRefused(*reasons)
        changed = changed_settings(self.settings, settings)
        answering = self._answering(settings) if changed else None

        def commit(_: None) -> list[str]:
            if self.state is not State.SERVING:
                rollout.give_up()
            self._check_serving()
            if tls is not None and self._listening is not None:
                self._listening.renew(tls)
            if answering is not None:
                self._renew(settings, *answering)
            self.repository.commit(rollout, settings)
            return changed + rollout.told()

        return rollout.load().addCallback(commit)

    def _check_serving(self) -> None:
        if self.state is not State.SERVING:
            raise ReloadRefused("the server is being stopped")

    def _renew(self, settings: ServerSettings, router: Router, site: Site, limits: Limits) -> None:
        """Have everything but the models go by `settings`."""
        if settings.quotas != self.settings.quotas:
            self.server.quotas = quotas_of(settings.quotas)  # with full buckets
        self.settings = settings
        self.server.drain_timeout = settings.drain_timeout_s
        self._journal.write_line = self._write_access_line if settings.access_log else None
        self.front.renew(router, site, limits)
        if self._rpc is not None:
            self._rpc.renew(settings)

    def _open(self) -> Deferred[Listening]:
        tls = tls_files(self.settings, self._base)
        return self._open_rpc().addCallback(lambda _: self._open_http(tls))

    def _open_rpc(self) -> Deferred[None]:
        if self.settings.grpc_port is None:
            return succeed(None)
        try:
            from batcher.frontends.grpc.front import (
                RpcFront,
            )  # an extra, imported only where it is asked for
        except ImportError as err:
            place = self.settings.origin("grpc_port")
            raise ConfigError(
                f"{place}: grpc_port: expected `pip install batcher[grpc]`; got none: {err}"
            ) from err
        self._rpc = RpcFront(
            self.server, self.repository, self.settings, self._base, self._reactor, self._journal
        )
        return self._rpc.open()

    def _open_http(self, tls: Tls | None) -> Deferred[Listening]:
        self._check_starting()
        listeners = open_sockets(self.settings, self._base)
        self.address = " and ".join(address_of(listener, tls is not None) for listener in listeners)
        if self._rpc is not None:
            self.address += f" and {self._rpc.address}"
        return self._listen(self.front, listeners, tls)

    def _opened(self, listening: Listening) -> Deferred[Any]:
        self._listening = listening
        if self.state is not State.STARTING:
            listening.close()
        self._check_starting()
        return DeferredList(self.repository.start(), consumeErrors=True)

    def _check_starting(self) -> None:
        if self.state is not State.STARTING:
            raise Draining("the server was stopped before it had started")

    def _loaded(self, results: list[tuple[bool, Any]]) -> None:
        failures = [result for succeeded, result in results if not succeeded]
        if failures and self.settings.strict_start:
            self._failed(failures[0])
            return
        for failure in failures:
            self._log.error("{reason}", reason=failure.getErrorMessage())
        if self.state is State.STARTING:
            self._become(State.SERVING)
            self.ready.callback(None)
            self._reloads.open()
        else:
            self._failed(
                Failure(ModelLoadError("the server was stopped before its models were loaded"))
            )

    def _failed(self, failure: Failure) -> None:
        if not failure.check(BatcherError, OSError):
            self._log.failure("the server could not start", failure)
        if not self.ready.called:
            self.ready.errback(failure)

    def _drain(self) -> None:
        if self.state is State.NEW:
            self._end(None)
            return
        self._become(State.DRAINING)
        timeout = self._reactor.callLater(self.settings.drain_timeout_s, self._end, None)
        closed = (
            maybeDeferred(self._listening.close) if self._listening is not None else succeed(None)
        )
        closed.addCallback(
            lambda _: DeferredList(
                [self.front.drain(), self._rpc.drain() if self._rpc else succeed(None)]
            )
        )
        closed.addCallback(lambda _: self.server.drain())
        closed.addErrback(lambda failure: self._log.failure("stopping failed", failure))
        closed.addCallback(lambda _: timeout.active() and timeout.cancel())
        closed.addCallback(self._end)

    def _end(self, _: object) -> None:
        if self.state is State.STOPPED:
            return
        draining = self.state is State.DRAINING
        self._become(State.STOPPED)
        if draining:
            self.server.stop()
            rpc = self._rpc.stop() if self._rpc is not None else succeed(None)
            DeferredList([self.front.stop(), rpc]).addCallback(self._ended)
        else:
            self._ended(None)

    def _ended(self, _: object) -> None:
        if not self.ready.called:
            self.ready.errback(Draining("the server was stopped"))
        stopped, self._stopped = self._stopped, []
        super().stopService()  # type: ignore[no-untyped-call]  # as above
        for waiting in stopped:
            waiting.callback(None)

    def _become(self, state: State) -> None:
        if state not in STATES[self.state]:
            raise RuntimeError(f"the service cannot go from {self.state.value} to {state.value}")
        self.state = state
