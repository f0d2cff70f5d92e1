"""The thread of a program on which servers run, with a loop and a reactor of its own."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import uvloop
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from batcher.app.log_lines import begin_logging
from batcher.app.loop import install_reactor
from batcher.app.run import make_service
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.models.loading import load_model
from batcher.workers.daemon_threads import start_daemon, wait_at_exit

if TYPE_CHECKING:
    from batcher.app.service import BatcherService

_thread: ServerThread | None = None


def server_thread() -> ServerThread:
    """Return the thread of servers, which is started now if there is none.

    Raises:
        ConfigError: the program has a reactor already.
        Exception: whatever kept the reactor from running.
    """
    global _thread
    if _thread is None:
        if "twisted.internet.reactor" in sys.modules:
            raise ConfigError(
                "batcher.serve: expected a program without a reactor of Twisted; got one that has "
                "imported twisted.internet.reactor: use batcher.BatcherService on that reactor"
            )
        _thread = ServerThread()
    # Kept before the wait: Ctrl-C ends the wait, and the next server finds the thread.
    _thread.wait_for_reactor()
    return _thread


class ServerThread:
    """Runs functions on the thread of the reactor. Any thread but that one."""

    def __init__(self) -> None:
        """Start the thread."""
        self._began: SimpleQueue[BaseException | None] = SimpleQueue()
        self._reactor: Any = None
        self._thread = start_daemon(self._run, "batcher-reactor")
        atexit.register(self._end)

    @property
    def is_alive(self) -> bool:
        """Whether functions can be run: not in a copy of the process that a model has forked."""
        return self._thread.is_alive()

    def _end(self) -> None:
        """End the thread with the program. Main thread."""
        if self.is_alive and self._reactor is not None:
            wait_at_exit(self._thread)
            self._reactor.callFromThread(self._reactor.stop)

    def wait_for_reactor(self) -> None:
        """Return when the reactor runs; raise what kept it from running."""
        error = self._began.get()
        self._began.put(error)  # for whoever asks next
        if error is not None:
            raise error

    def _run(self) -> None:
        """Run the reactor for ever. Its own thread."""
        try:
            self._loop = uvloop.new_event_loop()
            self._reactor = install_reactor(self._loop)
            begin_logging("text")
            self._reactor.callWhenRunning(self._began.put, None)
            self._reactor.run(installSignalHandlers=False)
        # Whatever it is, nobody else would hear it, and the program would wait for ever.
        except BaseException as err:
            self._began.put(err)

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what `function` returns there, or its Deferred fires with; raise its failure."""
        answer: SimpleQueue[Any] = SimpleQueue()
        self._reactor.callFromThread(lambda: maybeDeferred(function).addBoth(answer.put))
        result = answer.get()
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def start(self, settings: ServerSettings, base: Path) -> BatcherService:
        """Return a server that listens and has loaded the models of its settings.

        Whatever ends the wait, Ctrl-C too, ends the server, so that its port is free again.
        """
        make = partial(make_service, settings, base, self._loop, self._reactor)
        service: BatcherService = self.call(make)

        def begin() -> Deferred[None]:
            service.startService()
            return service.ready

        try:
            self.call(begin)
        except BaseException:
            self.call(service.stopService)
            raise
        return service

    def add(
        self,
        service: BatcherService,
        definition: ModelDefinition,
        maker: Any,
        sample: Any,
        settings: ModelSettings,
    ) -> None:
        """Have `service` serve the model that `maker` makes; returns when it is ready.

        `sample` are rows by name that it can answer; None without any.
        """
        self.call(
            lambda: service.server.add(
                definition,
                settings,
                lambda progress: load_model(definition, settings, progress, maker, sample),
            )
        )
