"""Threads for the CPU work of single requests: pictures, `preprocess`, `postprocess`.

The pool is bounded in tasks and in bytes, and refuses more at once. Each task ends in one of four
ways:

| the task | its Deferred | its thread |
|---|---|---|
| is done | fires with the result or the error | is free for the next task |
| is cancelled while it waits | is cancelled | never begins it; its body is let go of at once |
| is cancelled while it runs | is cancelled | finishes it, and the result is dropped |
| is late | fails with DeadlineExceeded, at its deadline | as for a task that was cancelled |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.batching.worker import CallFromThread
from batcher.core.alarm import Alarm
from batcher.core.frames import clear_all_frames
from batcher.errors import DeadlineExceeded, Draining, QueueFull
from batcher.workers.daemon_threads import DaemonThreads
from batcher.workers.fair_queue import FairQueue

Result = TypeVar("Result")


class _CpuTask(Generic[Result]):
    """One function that waits for a thread, or runs on one.

    Attributes:
        function: what to run, None once it has begun or was cancelled.
        client: whose share of the pool the function uses.
        nbytes: bytes that the function holds on to.
        deadline: when it must be answered, in seconds of the pool's clock.
        deferred: what fires with its result.
    """

    __slots__ = ("_done", "_result", "client", "deadline", "deferred", "function", "nbytes")

    deferred: Deferred[Result]

    def __init__(
        self,
        function: Callable[[], Result],
        done: Callable[[_CpuTask[Result], Result | Failure], object],
        client: str,
        nbytes: int,
        deadline: float,
    ) -> None:
        """Hold `function`; call `done` with the result once it has run. Reactor thread."""
        self.function: Callable[[], Result] | None = function
        self.client = client
        self.nbytes = nbytes
        self.deadline = deadline
        self._done = done
        self._result: list[Result | Failure] = []

    def run(self) -> None:
        """Run the function, and let go of it. A thread of the pool."""
        function, self.function = self.function, None
        assert function is not None, "a cancelled task is never run"
        try:
            self._result.append(function())
        # SystemExit too: it is the answer of this task, not the end of the thread.
        except BaseException as err:
            self._result.append(Failure())
            clear_all_frames(err)

    def ended(self) -> None:
        """Hand the result over. A thread of the pool."""
        self._done(self, self._result.pop())


class CpuPool:
    """Runs functions on threads and gives their results back on the reactor thread.

    The threads are shared fairly among clients, as `FairQueue` says.
    """

    def __init__(
        self,
        threads: int,
        max_tasks: int,
        max_bytes: int,
        call_from_thread: CallFromThread,
        clock: IReactorTime,
        name: str = "CPU",
    ) -> None:
        """Bound the pool; threads start with the first tasks. Reactor thread.

        `name` tells pools apart in errors and in the names of threads.
        """
        self._queue: FairQueue[_CpuTask[Any]] = FairQueue(f"the {name} pool", max_tasks, max_bytes)
        self._threads = DaemonThreads(threads, f"batcher-{name.lower()}", self._queue)
        self._call_from_thread = call_from_thread
        self._clock = clock
        self._unanswered: set[_CpuTask[Any]] = set()
        self._alarm = Alarm(clock, self._expire)
        self._stopped = False

    @property
    def tasks(self) -> int:
        """How many tasks wait or run, those that nobody waits for included."""
        return self._queue.items

    @property
    def nbytes(self) -> int:
        """How many bytes those tasks hold on to."""
        return self._queue.nbytes

    @property
    def peak(self) -> int:
        """The most that `nbytes` was since `peak` was last set."""
        return self._queue.peak

    @peak.setter
    def peak(self, nbytes: int) -> None:
        self._queue.peak = nbytes

    def run(
        self, nbytes: int, deadline: float, function: Callable[[], Result], client: str = ""
    ) -> Deferred[Result]:
        """Run `function`, which holds on to `nbytes` bytes; answer by `deadline`, in seconds.

        The function uses the share of `client`. Cancelling the Deferred drops the task if it still
        waits. The Deferred fails with what `function` raised, or with DeadlineExceeded. Reactor
        thread.

        Raises:
            QueueFull: too many tasks or bytes are here, or are here for this client; or the system
                has no more threads.
            Draining: the pool was stopped.
        """
        if self._stopped:
            raise Draining("the server is being stopped and takes no more requests")
        task: _CpuTask[Result] = _CpuTask(function, self._ended, client, nbytes, deadline)
        deferred: Deferred[Result] = Deferred(lambda _: self._give_up(task))
        task.deferred = deferred
        self._add(task)
        return deferred

    def stop(self) -> None:
        """Give up tasks that wait; those that run are finished, or answered by their deadline.

        Reactor thread.
        """
        self._stopped = True
        self._threads.stop()
        # A copy, and a second look: an answer may cancel another task.
        for task in list(self._unanswered):
            if task in self._unanswered and self._drop(task):
                self._unanswered.discard(task)
                task.deferred.errback(
                    Draining(
                        "the server was stopped before the request was prepared", retry_after=0
                    )
                )
        self._cancel_idle_alarm()

    def _add(self, task: _CpuTask[Any]) -> None:
        """Let `task` wait for a thread and for its deadline. Raises QueueFull. Reactor thread."""
        self._unanswered.add(task)
        self._alarm.set(task.deadline)
        try:
            self._threads.add(task)
        except (QueueFull, RuntimeError) as err:
            task.function = None  # the task and its Deferred hold each other, and a body with them
            self._unanswered.discard(task)
            self._cancel_idle_alarm()
            if isinstance(err, QueueFull):
                raise
            raise QueueFull(f"the CPU pool is full: {err}") from err  # no more threads

    def _cancel_idle_alarm(self) -> None:
        """Leave no timer behind if no task is unanswered. Reactor thread."""
        if not self._unanswered:
            self._alarm.cancel()

    def _give_up(self, task: _CpuTask[Result]) -> None:
        """Let the caller answer `task`; drop the task if it waits. Reactor thread."""
        self._unanswered.discard(task)
        self._drop(task)

    def _drop(self, task: _CpuTask[Result]) -> bool:
        """Keep `task` from being run; return whether it waited until now. Reactor thread."""
        waited = self._threads.remove(task)
        if waited:
            task.function = None
        return waited

    def _ended(self, task: _CpuTask[Result], result: Result | Failure) -> None:
        """Tell the loop that `task` has run. A thread of the pool."""
        self._call_from_thread(self._done, task, result)

    def _done(self, task: _CpuTask[Result], result: Result | Failure) -> None:
        """Answer `task`, which has run, unless that was done before. Reactor thread."""
        if task not in self._unanswered:
            return
        self._unanswered.discard(task)
        self._cancel_idle_alarm()
        task.deferred.callback(result)

    def _expire(self) -> None:
        """Answer the tasks whose deadline has passed. Reactor thread."""
        now = self._clock.seconds()
        for task in [task for task in self._unanswered if task.deadline <= now]:
            if task in self._unanswered:
                self._give_up(task)
                task.deferred.errback(
                    DeadlineExceeded("the deadline passed while the request was being prepared")
                )
        if self._unanswered:
            self._alarm.set(min(task.deadline for task in self._unanswered))
