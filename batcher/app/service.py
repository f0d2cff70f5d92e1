"""`BatcherService`: the whole server as one Twisted service.

The service runs under `twist` and `twistd`, inside another Twisted program on that program's
reactor, and under `serve.py`, which hands over a faster way to listen.

    NEW ──► STARTING ──► SERVING ──► LEAVING ──► DRAINING ──► STOPPED
     │         │            └-----------------------▲            ▲
     │         └------------------------------------┘            │
     └-----------------------------------------------------------┘

STARTING opens the ports first, so that `/livez` and `/readyz` answer while models load. SERVING
accepts a `reload`: all that is new is made ready beside what serves, then everything changes in one
turn of the loop. LEAVING lasts `pre_stop_s`, and is left out where that is 0: the server is not
ready any more, and takes connections and requests as before, until the balancer in front has heard.
DRAINING closes the ports and lets every connection end with the answers that are due on it, within
`drain_timeout_s`; a model that hangs delays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.app.frontends import Answering, Frontends, Ways
from batcher.app.jobs.server_jobs import ServerJobs, make_jobs
from batcher.app.registering import listing_of
from batcher.app.reloading import Read, Reloads
from batcher.batching.worker import CallFromThread
from batcher.config.changes import changed_settings, restart_reasons
from batcher.config.settings import ServerSettings
from batcher.core.history import STEP_S
from batcher.core.states import StateTable
from batcher.core.waiters import Waiters
from batcher.errors import BatcherError, ConfigError, Draining, ModelLoadError, ReloadRefused
from batcher.frontends.endpoints.answer_log import WriteLine
from batcher.frontends.web.front import Front
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.repository.rollout import Rollout
from batcher.serving.server import ModelServer
from batcher.serving.stages.quotas import quotas_of

_log = Logger()


class State(Enum):
    """Where the service is in its life."""

    NEW = "new"
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    DRAINING = "draining"
    STOPPED = "stopped"


STATES = StateTable(
    {
        State.NEW: {State.STARTING, State.STOPPED},
        State.STARTING: {State.SERVING, State.DRAINING},
        State.SERVING: {State.LEAVING, State.DRAINING},
        State.LEAVING: {State.DRAINING},
        State.DRAINING: {State.STOPPED},
        State.STOPPED: set(),
    },
    "the service cannot go from {old} to {new}",
)
"""From each state, the states that may follow."""

_TIME_IS_OVER = object()
"""Why a drain ends that has taken `drain_timeout_s`."""


class BatcherService(MultiService):
    """The whole server as a Twisted service. Reactor thread.

    Args:
        settings: the whole configuration.
        base: folder that relative paths in the settings start from; made absolute at once, since a
            model may change the working directory.
        reactor: the program's reactor, for time, threads and, without `ways`, ports.
        call_from_thread: a cheaper way back from threads than the reactor's own.
        call_soon: a cheaper way to call in the next turn of the loop than a timer of no delay.
        ways: faster ways to listen than the reactor's own.
        progress: called with a model's title and with what is being done with that model.
        write_access_line: called with each line of the access log.

    Attributes:
        settings: the settings that are in force.
        server: the models.
        repository: the folders that the models come from.
        state: where the service is in its life.
        ready: fires with None once every model has loaded; fails with the first reason if a model
            could not be loaded, or if the ports could not be opened.
    """

    state = State.NEW
    _stopping_since: float | None = None

    def __init__(
        self,
        settings: ServerSettings,
        base: Path,
        reactor: Any,
        *,
        call_from_thread: CallFromThread | None = None,
        call_soon: Callable[..., object] | None = None,
        ways: Ways | None = None,
        progress: Callable[[str, str], None] = lambda title, text: None,
        write_access_line: WriteLine | None = None,
    ) -> None:
        """Wire everything; nothing starts."""
        super().__init__()  # type: ignore[no-untyped-call]  # mypy-zope sees no stub
        self.settings, self._stopped = settings, Waiters()
        self.ready: Deferred[None] = Deferred()
        cross = _in_a_burst(self, call_from_thread or reactor.callFromThread)
        soon = _in_a_burst(self, call_soon or partial(reactor.callLater, 0))
        self.server = ModelServer(reactor, cross, settings, progress=progress, call_soon=soon)
        self.repository = ModelRepository(self.server, settings, base)
        self._reloads = Reloads(self._change, self.server.metrics)
        self._jobs = make_jobs(settings, base, self.server)
        self._listing = listing_of(settings, self.server, cross)
        parts = (self.server, self.repository, settings, base, reactor, ways)
        self._frontends = Frontends(*parts, write_access_line, self._jobs)

    @property
    def front(self) -> Front:
        """All connections of HTTP."""
        return self._frontends.front

    @property
    def address(self) -> str:
        """Where clients connect, in words; empty before the ports are open."""
        return self._frontends.address

    def startService(self) -> None:
        """Open the ports, then load every model; `ready` says how that went."""
        _marks(self.server).setServiceParent(self)
        super().startService()  # type: ignore[no-untyped-call]  # mypy-zope sees no stub
        self._become(State.STARTING)
        opening = maybeDeferred(self._frontends.open).addCallback(self._load)
        opening.addCallbacks(self._loaded, self._failed)
        opening.addErrback(lambda failure: _log.failure("starting failed", failure))

    def stopService(self) -> Deferred[None]:
        """Stop as the module says; fires when nothing is left."""
        if self.state is State.STOPPED:
            return succeed(None)
        stopped = self._stopped.wait()
        if self.state not in (State.LEAVING, State.DRAINING):
            self._leave()
            # Reloads that wait for the start are refused now.
            self._reloads.open()
        return stopped

    def reload(self, read: Read) -> Deferred[None]:
        """Apply the settings that `read` returns, and what has changed in the models' folders.

        Fires when all is applied. What has not changed is not touched, and no request is lost. A
        reload waits for the start to end and for the reload before it; all reloads that wait are
        made as one.

        The Deferred fails with ReloadRefused or ConfigError, and nothing has changed, if anything
        cannot be applied: a setting is wrong or needs a restart, or a model cannot be loaded. The
        message names every reason.
        """
        return self._reloads.reload(read)

    def _change(self, read: Read) -> Deferred[list[str]]:
        _check_serving(self.state)
        # The settings are read when the changes before this one are made, not before.
        changing = self.repository.alone(
            lambda: self.repository.read(read).addCallback(self._read_rest)
        )
        return changing.addErrback(_refuse_at_end)

    def _read_rest(self, settings: ServerSettings) -> Deferred[list[str]]:
        """Read all else that `settings` name, and make the change."""
        reads: list[Deferred[Any]] = [
            self.repository.rollout(settings),
            self.repository.read(self._frontends.read_tls).addErrback(_config_error),
        ]
        read: Deferred[list[Any]] = gatherResults(reads, consumeErrors=True)
        return read.addCallback(self._change_alone, settings)

    def _change_alone(self, read: list[Any], settings: ServerSettings) -> Deferred[list[str]]:
        rollout: Rollout
        rollout, tls = read
        _check_serving(self.state)
        reasons = restart_reasons(self.settings, settings) + rollout.reasons
        if isinstance(tls, ConfigError):
            reasons.append(str(tls))
        if reasons:
            raise ReloadRefused(*reasons)
        changed = changed_settings(self.settings, settings)
        answering = self._frontends.answering(settings) if changed else None

        def commit() -> list[str]:
            _check_serving(self.state)
            # First, since the files may have changed again while models loaded.
            if tls is not None:
                self._frontends.renew_tls(tls)
            if answering is not None:
                self._renew(settings, answering)
            self.repository.commit(rollout, settings)
            return changed + rollout.changes()

        return rollout.make(commit)

    def _renew(self, settings: ServerSettings, answering: Answering) -> None:
        """Have everything but the models follow `settings`."""
        # Quotas that have not changed keep what is left in their buckets.
        if settings.quotas != self.settings.quotas:
            self.server.limit(quotas_of(settings.quotas))
        ttl, max_bytes = settings.idempotency_ttl_s, settings.idempotency_max_bytes
        self.server.name_stages.keep(ttl, max_bytes)
        self.server.traffic.follow(settings)
        self.server.fetcher.follow(settings)
        self.settings = settings
        self.server.lifecycle.drain_timeout_s = settings.drain_timeout_s
        self.repository.watch.every(settings.watch_repository_s)
        self.server.lifecycle.turns.set_limit(settings.load_concurrency)
        self._frontends.renew(settings, answering)

    def _load(self, _: None) -> Deferred[list[tuple[bool, Any]]]:
        loading = self.repository.start()
        if not self.settings.strict_start:
            # At once: the last model may be ready minutes later.
            loading.addCallback(lambda each: [one.addErrback(_log_reason) for one in each])
        return loading.addCallback(lambda each: DeferredList(each, consumeErrors=True))

    def _loaded(self, results: list[tuple[bool, Any]]) -> Deferred[None] | None:
        failures = [result for succeeded, result in results if not succeeded]
        is_over = bool(failures) and self.settings.strict_start
        if is_over:
            # Why the start is over is the first reason, which whoever waits for `ready` tells.
            for failure in failures[1:]:
                _log_reason(failure)
            self._failed(failures[0])
        elif self._jobs is not None and self.state is State.STARTING:
            # First, so that whoever finds the server ready finds its job of before the start.
            return self._jobs.start().addBoth(self._started)
        else:
            self._started(None)
        return None

    def _started(self, _: object) -> None:
        if self.state is State.STARTING:
            self._become(State.SERVING)
            self.ready.callback(None)
            self._listing.begin(self.address)
            self._reloads.open()
            self.repository.watch.every(self.settings.watch_repository_s)
        else:
            stopped = ModelLoadError("the server was stopped before its models were loaded")
            self._failed(Failure(stopped))

    def _failed(self, failure: Failure) -> None:
        # Other errors are faults of the server's own, and their traceback is wanted.
        if not failure.check(BatcherError, OSError):
            _log.failure("the server could not start", failure)
        if not self.ready.called:
            self.ready.errback(failure)

    def _leave(self) -> None:
        if self.state is State.NEW:
            self._end(None)
            return
        # A start that failed is told by `ready`: lines about its end would stand around the reason.
        if not (self.state is State.STARTING and self.ready.called):
            self._stopping_since = self.server.clock.seconds()
        self.repository.watch.every(0)
        self.server.announce_end()
        self._listing.end()
        # Nobody was sent to a server that has not been ready yet.
        if self.state is State.SERVING and self.settings.pre_stop_s:
            self._become(State.LEAVING)
            _log.info(
                "stopping: not ready from now on; all requests are taken for {seconds:g} s more "
                "(pre_stop_s)",
                seconds=self.settings.pre_stop_s,
            )
            self.server.clock.callLater(self.settings.pre_stop_s, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self._become(State.DRAINING)
        limit = self.settings.drain_timeout_s
        if self._stopping_since is not None:
            _log.info(
                "draining: no new connections; what was accepted has {seconds:g} s "
                "(drain_timeout_s)",
                seconds=limit,
            )
        timeout = self.server.clock.callLater(limit, self._end, _TIME_IS_OVER)
        # Clients first: their last requests still need the models.
        closed = self._listing.end().addCallback(lambda _: self._frontends.close())
        # Beside each other: a job that puts gigabytes into a store holds up no client's request.
        closed.addCallback(
            lambda _: DeferredList([_stop_jobs(self._jobs), self._frontends.drain()])
        )
        closed.addCallback(lambda _: self.server.drain())
        closed.addErrback(lambda failure: _log.failure("stopping failed", failure))
        closed.addCallback(self._drained, timeout)

    def _drained(self, _: object, timeout: IDelayedCall) -> None:
        if timeout.active():
            timeout.cancel()
        self._end(None)

    def _end(self, reason: object) -> None:
        # Twice after a drain that took too long: from the timer, and from the drain itself.
        if self.state is State.STOPPED:
            return
        if reason is _TIME_IS_OVER:
            _log.warn("drain_timeout_s is over: requests that are not answered yet are given up")
        draining = self.state is State.DRAINING
        self._become(State.STOPPED)
        if self._jobs is not None:
            self._jobs.close()
        if draining:
            self.server.stop()
            self._frontends.stop().addCallback(self._ended)
        else:
            self._ended(None)

    def _ended(self, _: object) -> None:
        if not self.ready.called:
            self.ready.errback(Draining("the server was stopped"))
        super().stopService()  # type: ignore[no-untyped-call]  # mypy-zope sees no stub
        if self._stopping_since is not None:
            seconds = self.server.clock.seconds() - self._stopping_since
            _log.info("stopped after {seconds:.1f} s", seconds=seconds)
        self._stopped.release()

    def _become(self, state: State) -> None:
        self.state = STATES.step(self.state, state)


def _in_a_burst(service: BatcherService, call: Callable[..., object]) -> Callable[..., None]:
    """Return `call`, which has a function called later, with a burst around that function.

    One batch has many answers; in a burst they leave with one system call a connection.
    """

    def call_in_a_burst(function: Callable[..., object], *arguments: object) -> None:
        # The front-ends are made after the server, so this name is looked up at each call.
        call(service._frontends.burst, function, *arguments)

    return call_in_a_burst


def _stop_jobs(jobs: ServerJobs | None) -> Deferred[Any]:
    """Stop batch jobs, if there are any: they go on when the server starts again."""
    if jobs is None:
        return succeed(None)
    stopped = maybeDeferred(jobs.stop)
    return stopped.addErrback(lambda failure: _log.failure("stopping jobs failed", failure))


def _log_reason(failure: Failure) -> Failure:
    """Log why a model could not be loaded; the failure goes on."""
    _log.error("{reason}", reason=failure.getErrorMessage())
    return failure


def _marks(server: ModelServer) -> TimerService:
    """Return the timer that keeps marks of what `server` counts."""
    timer = TimerService(STEP_S, lambda: server.metrics.note(server.seconds(), server.pools.gpus))
    timer.clock = server.clock
    return timer


def _check_serving(state: State) -> None:
    if state is not State.SERVING:
        raise ReloadRefused("the server is being stopped")


def _config_error(failure: Failure) -> ConfigError:
    """Return the ConfigError in `failure`; any other failure goes on."""
    failure.trap(ConfigError)
    assert isinstance(failure.value, ConfigError)
    return failure.value


def _refuse_at_end(failure: Failure) -> NoReturn:
    """Raise ReloadRefused where the disk is not read any more, since the server ends."""
    failure.trap(Draining)
    raise ReloadRefused("the server is being stopped") from failure.value
