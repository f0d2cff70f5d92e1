"""Threads for the CPU work of single requests: pictures, `preprocess`, `postprocess`.

Bounded in tasks and in bytes; more is refused at once. A task whose request is gone is dropped
while it waits, and lets go of its body then and there, not when a thread comes to it. A task that
outlives its request's deadline is answered for at the deadline, whatever its thread is doing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.batching.worker import CallFromThread
from batcher.core.alarm import Alarm
from batcher.errors import DeadlineExceeded, Draining, QueueFull

Result = TypeVar("Result")


class _Task(Generic[Result]):
    def __init__(self, function: Callable[[], Result], nbytes: int, deadline: float) -> None:
        self.function: Callable[[], Result] | None = function
        self.nbytes = nbytes
        self.deadline = deadline
        self.future: Future[Result]
        self.deferred: Deferred[Result]

    def run(self) -> Result:
        function, self.function = self.function, None
        assert function is not None, "a cancelled task is never run"
        return function()


class CpuPool:
    """Runs functions on threads and gives their results back on the reactor thread."""

    def __init__(
        self,
        threads: int,
        max_tasks: int,
        max_bytes: int,
        call_from_thread: CallFromThread,
        clock: IReactorTime,
    ) -> None:
        """Bound the pool; threads start with the first tasks."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="batcher-cpu")
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._call_from_thread = call_from_thread
        self._clock = clock
        self._unanswered: set[_Task[Any]] = set()
        self._alarm = Alarm(clock, self._expire)
        self._stopped = False
        self.tasks = 0
        self.nbytes = 0

    def run(self, nbytes: int, deadline: float, function: Callable[[], Result]) -> Deferred[Result]:
        """Run `function`, which holds on to `nbytes` bytes, and answer by `deadline`, in seconds. Reactor thread.

        Cancelling the Deferred drops the task if it still waits. It fails with what `function`
        raised, or with DeadlineExceeded.

        Raises:
            QueueFull: too many tasks or bytes are here already, or the system has no thread for the
                first ones.
            Draining: the pool was stopped.
        """
        if self._stopped:
            raise Draining("the server is being stopped and takes no more requests")
        full = self.tasks >= self._max_tasks or (
            self.tasks and self.nbytes + nbytes > self._max_bytes
        )
        if full:
            raise QueueFull(
                f"the CPU pool is full: {self.tasks} of {self._max_tasks} tasks, {self.nbytes} of "
                f"{self._max_bytes} bytes",
            )
        task = _Task(function, nbytes, deadline)
        try:
            task.future = self._executor.submit(task.run)
        except RuntimeError as err:  # no more threads; it keeps the task nevertheless
            task.function = None
            raise QueueFull(f"the CPU pool is full: {err}") from err
        self.tasks += 1
        self.nbytes += nbytes
        task.deferred = Deferred(lambda _: self._give_up(task))
        self._unanswered.add(task)
        self._alarm.set(deadline)
        task.future.add_done_callback(lambda done: self._call_from_thread(self._done, task))
        return task.deferred

    def stop(self) -> None:
        """Give up what waits; what runs is finished, or answered by its deadline.

        Reactor thread.
        """
        self._stopped = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for task in list(self._unanswered):
            if task in self._unanswered and task.future.cancelled():
                self._give_up(task)
                task.deferred.errback(
                    Draining(
                        "the server was stopped before the request was prepared", retry_after=0
                    )
                )
        self._rest()

    def _rest(self) -> None:
        if not self._unanswered:
            self._alarm.cancel()

    def _give_up(self, task: _Task[Result]) -> None:
        self._unanswered.discard(task)
        if task.future.cancel():
            task.function = None

    def _done(self, task: _Task[Result]) -> None:
        self.tasks -= 1
        self.nbytes -= task.nbytes
        if task not in self._unanswered:
            return
        self._unanswered.discard(task)
        self._rest()
        if (error := task.future.exception()) is not None:
            task.deferred.errback(error)
        else:
            task.deferred.callback(task.future.result())

    def _expire(self) -> None:
        now = self._clock.seconds()
        for task in [task for task in self._unanswered if task.deadline <= now]:
            if task in self._unanswered:
                self._give_up(task)
                task.deferred.errback(
                    DeadlineExceeded("the deadline passed while the request was being prepared")
                )
        if self._unanswered:
            self._alarm.set(min(task.deadline for task in self._unanswered))
