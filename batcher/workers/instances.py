"""Several workers of one model, as one for its start and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.python.failure import Failure

from batcher.batching.worker import Condition, Deliver, Worker
from batcher.models.kept_rows import KeptRows, Wish, joined_wish
from batcher.models.protocol import Hook, LoadedModel, RemoteHook
from batcher.workers.letting_go import let_go
from batcher.workers.process.hook_client import SharedHook

SetTakesBatches = Callable[[int, bool], None]
"""Hears the index of a worker, and whether that worker takes batches now. Reactor thread."""


class Instances:
    """The workers of one model.

    Attributes:
        condition: condition of the best of them: the model is alive while one takes batches.
        reason: why, in words, the worker that changed last is in its condition.
        wanted: how many workers are to take batches.
    """

    _deliver: Deliver
    _set_takes_batches: SetTakesBatches
    _changed: Callable[[], None]

    def __init__(self, workers: Sequence[Worker]) -> None:
        """Hold `workers`; nothing starts. Reactor thread."""
        self._workers = workers
        self._conditions = [Condition.ALIVE] * len(workers)
        self.reason = ""
        self.wanted = len(workers)
        self._only_first = False
        self._kept_rows: dict[int, KeptRows] = {}
        self._wishes: dict[object, Wish] = {}

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over the workers. Reactor thread."""
        return iter(self._workers)

    @property
    def condition(self) -> Condition:
        """The condition of the best worker. Reactor thread."""
        # Conditions are listed from the best to the worst.
        return next(condition for condition in Condition if condition in self._conditions)

    @property
    def alive(self) -> int:
        """Workers that take batches. Reactor thread."""
        return self._conditions.count(Condition.ALIVE)

    def start(
        self,
        deliver: Deliver,
        set_takes_batches: SetTakesBatches,
        changed: Callable[[], None],
    ) -> Deferred[LoadedModel]:
        """Load the model in all workers; fires when all are ready.

        If a load fails, the Deferred fails with the first ModelLoadError.

        Args:
            deliver: called with each batch that comes back.
            set_takes_batches: called when a worker starts or stops to take batches.
            changed: called after that.

        Reactor thread.
        """
        self._deliver, self._set_takes_batches = deliver, set_takes_batches
        self._changed = changed
        for index in range(self.wanted, len(self._workers)):
            set_takes_batches(index, False)
        started = [self._start(index) for index in range(self.wanted)]
        return _gathered(started).addCallbacks(self._with_shared_hooks, self._failed)

    @property
    def devices(self) -> frozenset[str]:
        """The devices on which instances can keep rows, and take rows from. Reactor thread."""
        return frozenset([kept.device for kept in self._kept_rows.values()])

    def wish(self, asker: object, wish: Wish | None) -> None:
        """Have all instances do what `asker` asks now; None for nothing. Reactor thread."""
        if self._wishes.get(asker) == wish:
            return
        self._wishes.pop(asker, None)
        if wish is not None:
            self._wishes[asker] = wish
        for kept in self._kept_rows.values():
            kept.follow(joined_wish(self._wishes.values()))

    def quit(self) -> Deferred[None]:
        """End all workers; fires when all have ended, which a thread that hangs never does.

        Reactor thread.
        """
        self._kept_rows.clear()
        self._wishes.clear()
        ended = DeferredList([worker.quit() for worker in self])
        return ended.addCallback(
            lambda _: let_go(self, "_deliver", "_set_takes_batches", "_changed")
        )

    def _start(self, index: int) -> Deferred[LoadedModel]:
        """Load the model in the worker at `index`. Reactor thread."""
        loading = self._workers[index].start(self._deliver, partial(self._change, index))
        return loading.addCallback(self._note_kept_rows, index)

    def _note_kept_rows(self, loaded: LoadedModel, index: int) -> LoadedModel:
        """Have the instance at `index`, which has loaded, do what all are asked. Reactor thread."""
        kept = loaded.kept_rows
        if kept is None:
            self._kept_rows.pop(index, None)
        else:
            kept.follow(joined_wish(self._wishes.values()))
            self._kept_rows[index] = kept
        return loaded

    def _change(self, index: int, condition: Condition, reason: str) -> None:
        """Note that the worker at `index` takes batches, or no more. Reactor thread."""
        if self._only_first and index:
            return
        self._conditions[index] = condition
        self.reason = reason
        self._set_takes_batches(index, condition is Condition.ALIVE)
        self._changed()

    def _with_shared_hooks(self, loaded: list[LoadedModel]) -> LoadedModel:
        """Return the first of `loaded`, with hooks that run in all processes in turn.

        Hooks of this process run on the first instance: one lock lets one of them run. Reactor
        thread.
        """
        if loaded[0].hands_over:
            self._keep_to_first()
            return loaded[0]
        return loaded[0]._replace(
            preprocess=_shared([one.preprocess for one in loaded]),
            postprocess=_shared([one.postprocess for one in loaded]),
        )

    def _keep_to_first(self) -> None:
        """Have the first worker alone run batches: what its model hands over is in that model."""
        for index in range(1, len(self._workers)):
            self._change(index, Condition.DEAD, "")
        self._only_first = True

    def _failed(self, failure: Failure) -> Failure:
        """End all workers, and return the reason of the one that failed first. Reactor thread."""
        self.quit()
        first = failure.value
        return first.subFailure if isinstance(first, FirstError) else failure


def _gathered(started: list[Deferred[LoadedModel]]) -> Deferred[list[LoadedModel]]:
    """Fire with the results of all `started`, or fail with the first failure. Reactor thread."""
    loaded = gatherResults(started, consumeErrors=True)
    for one in started:
        # A Deferred keeps its result, and with hooks the model, as long as the worker is there.
        one.addCallback(lambda _: None)
    return loaded


def _shared(hooks: list[Hook | RemoteHook | None]) -> Hook | RemoteHook | None:
    """Return one hook that stands for the `hooks` of all instances. Reactor thread."""
    remote = [hook for hook in hooks if isinstance(hook, RemoteHook)]
    return SharedHook(remote) if len(remote) > 1 else hooks[0]
