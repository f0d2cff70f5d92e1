"""Calls of hooks that an actor runs, as many at once as the pool has threads for."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from batcher.core.ragged import copied
from batcher.errors import WorkerLost
from batcher.models.model_errors import model_error
from batcher.workers.process.described_error import DescribedError, rebuild_error
from batcher.workers.process.messages import PREPROCESS, HookDone, RunHook
from batcher.workers.ray.cluster import Actor
from batcher.workers.ray.messages import HOOKS


class ActorHooks:
    """The hooks of one actor."""

    def __init__(self, actor: Actor, left: Callable[[], object]) -> None:
        """Have `actor` run the hooks of its model, and call `left` when one has run.

        Child thread.
        """
        self._actor = actor
        self._left = left
        self._lock = Lock()  # guards the two below
        self._running = 0
        self._ended = False

    def end(self) -> None:
        """Send no more calls: the actor has ended, or is about to. Child thread."""
        with self._lock:
            self._ended = True

    def end_if_idle(self) -> bool:
        """Send no more calls, unless one runs; return whether none does. Child thread."""
        with self._lock:
            self._ended = not self._running
            return self._ended

    def run(self, task: RunHook) -> HookDone:
        """Have the actor run `task`, and return what its hook has made.

        Raises:
            BatcherError: what the hook raised, or WorkerLost: the actor has ended.

        Pool thread.
        """
        lost = "the worker that runs the model's hooks was lost"
        with self._lock:
            if self._ended:
                # The model has run before `postprocess`, and no client shall have it run again.
                raise WorkerLost(lost, task.hook != PREPROCESS)
            self._running += 1
        try:
            answer = self._actor.call("run_hook", task, group=HOOKS).result()
        except Exception as err:
            raise WorkerLost(lost, begun=True) from err
        finally:
            with self._lock:
                self._running -= 1
            self._left()
        if isinstance(answer, DescribedError):
            raise model_error(rebuild_error(answer))
        assert isinstance(answer, HookDone)
        # The object store is small, and what is read from it stays there.
        return answer._replace(values={name: copied(each) for name, each in answer.values.items()})
