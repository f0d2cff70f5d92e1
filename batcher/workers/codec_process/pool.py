"""Heavy codecs, in order and within bounds: one thread, and behind it the child process.

The pool is a `CpuPool` of one thread, so its bounds, deadlines and cancellations hold here too.
Where a request is given up while the child works on it, the child is ended, and the next call
starts another: a codec of C cannot be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread
from batcher.core.alarm import Alarm
from batcher.workers.codec_process.process import CodecProcess
from batcher.workers.pool import CpuPool

Result = TypeVar("Result")

REST_AFTER_S = 30.0
"""Seconds without work after which the child ends and gives its memory back."""


class CodecPool:
    """Calls functions in the child process, and gives their results back on the reactor thread.

    Attributes:
        threads: the pool whose one thread waits for the child.
    """

    def __init__(
        self, max_tasks: int, max_bytes: int, call_from_thread: CallFromThread, clock: IReactorTime
    ) -> None:
        """Take up to `max_tasks` tasks of `max_bytes` together; nothing starts. Reactor thread."""
        self.threads = CpuPool(1, max_tasks, max_bytes, call_from_thread, clock)
        self._process = CodecProcess()
        self._clock = clock
        self._stopped = False
        self._alarm = Alarm(clock, self._rest)

    @property
    def is_busy(self) -> bool:
        """Whether the child works on a call. Any thread."""
        return self._process.is_busy

    def call(
        self,
        nbytes: int,
        deadline: float,
        client: str,
        function: Callable[..., Result],
        *arguments: Any,
    ) -> Deferred[Result]:
        """Call a function of a module in the child, with arguments that can be pickled.

        The call holds on to `nbytes` bytes, has until `deadline`, in seconds, and uses the share of
        `client`. The Deferred fires, fails, and is cancelled as that of `CpuPool.run`. Reactor
        thread.

        Raises:
            QueueFull: too many tasks or bytes are here.
            Draining: the pool was stopped.
        """
        task = _Task(self._process, function, arguments)
        self._alarm.cancel()
        done = self.threads.run(nbytes, deadline, task.run, client)
        return done.addBoth(self._over, task)

    def stop(self) -> None:
        """Give up tasks that wait and the one that runs, and end the child. Reactor thread."""
        self._stopped = True
        self._alarm.cancel()
        self.threads.stop()
        self._process.stop()

    def _over(self, result: Result, task: _Task) -> Result:
        """End the child if it works for nobody. Reactor thread."""
        self._process.give_up(task)
        if not self._stopped:
            self._alarm.set(self._clock.seconds() + REST_AFTER_S)
        return result

    def _rest(self) -> None:
        """Have the pool's thread end the child, which has nothing to do. Reactor thread."""
        deadline = self._clock.seconds() + REST_AFTER_S
        self.threads.run(0, deadline, self._process.rest).addErrback(lambda _: None)


class _Task:
    """One call, on its way to the child."""

    def __init__(
        self, process: CodecProcess, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        """Hold the call. Reactor thread."""
        self._process = process
        self._function = function
        self._arguments = arguments

    def run(self) -> Any:
        """Make the call. The pool's thread."""
        return self._process.call(self, self._function, self._take_arguments())

    def _take_arguments(self) -> tuple[Any, ...]:
        """Return the arguments, and let go of them. The pool's thread."""
        # No variable of `run` holds them: the traceback of an error would keep the body with it.
        arguments, self._arguments = self._arguments, ()
        return arguments
