"""Workers of one model that come and go while it serves.

| an instance is | takes batches | then |
|---|---|---|
| AWAY | no | COMING, when one more is wanted |
| COMING | no: the model is loaded and warmed up | HERE, or LEAVING where that fails |
| HERE | yes, unless it was lost and is started again | LEAVING, when one less is wanted |
| LEAVING | no: those that it holds run to their end | AWAY, when the worker has ended |

What leaves first is what takes no batches: an instance that still comes, one that was lost; then
the one that came last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.batching.worker import Condition
from batcher.models.protocol import Hook, LoadedModel, RemoteHook
from batcher.workers.instances import Instances
from batcher.workers.process.hook_client import SharedHook
from batcher.workers.scaling.passing_worker import PassingWorker


class _Stay(Enum):
    """Where an instance is, see the module's table."""

    AWAY = "away"
    COMING = "coming"
    HERE = "here"
    LEAVING = "leaving"


def _hear_nothing(reason: str) -> None:
    """Stand for a listener where nobody listens."""


class PassingInstances(Instances):
    """The workers of one model, some of which are there. Reactor thread.

    Attributes:
        told: hears when an instance that was to come has ended, and why; the empty string when an
            instance has come.
    """

    def __init__(self, workers: Sequence[PassingWorker], at_first: int) -> None:
        """Hold `workers`, of which the first `at_first` start with the model."""
        super().__init__(workers)
        self.wanted = at_first
        self.told: Callable[[str], None] = _hear_nothing
        self._passing = workers
        self._stays = [_Stay.HERE] * at_first + [_Stay.AWAY] * (len(workers) - at_first)
        self._conditions[at_first:] = [Condition.DEAD] * (len(workers) - at_first)
        self._shared: list[SharedHook | None] = []
        self._hooks: dict[int, list[tuple[SharedHook, RemoteHook]]] = {}

    @property
    def here(self) -> int:
        """Instances that have come and do not leave."""
        return self._stays.count(_Stay.HERE)

    @property
    def coming(self) -> list[str]:
        """What is done for each instance that comes, in words."""
        pairs = zip(self._passing, self._stays, strict=True)
        return [worker.doing for worker, stay in pairs if stay is _Stay.COMING]

    def scale(self, wanted: int, may_come: bool) -> None:
        """Have instances leave until `wanted` are left; or come, if they `may_come`."""
        self.wanted = wanted
        stays = [i for i, stay in enumerate(self._stays) if stay in (_Stay.COMING, _Stay.HERE)]
        missing = wanted - len(stays)
        if missing < 0:
            stays.sort(key=lambda index: (self._conditions[index] is Condition.ALIVE, -index))
            for index in stays[:-missing]:
                self._leave(index)
        elif may_come:
            away = [index for index, stay in enumerate(self._stays) if stay is _Stay.AWAY]
            for index in away[:missing]:
                self._come(index)

    def quit(self) -> Deferred[None]:
        """End all workers, as `Instances` does; none comes any more."""
        for index, stay in enumerate(self._stays):
            if stay is _Stay.COMING:
                self._stays[index] = _Stay.LEAVING
        return super().quit().addCallback(self._retire)

    def _come(self, index: int) -> None:
        """Load the model in the worker at `index`, which then takes batches."""
        self._stays[index] = _Stay.COMING
        started = self._start(index)
        started.addCallbacks(partial(self._came, index), partial(self._not_come, index))

    def _came(self, index: int, loaded: LoadedModel) -> None:
        """Give batches to the worker at `index`, which has loaded the model."""
        if self._stays[index] is not _Stay.COMING:
            return  # it was told to leave meanwhile
        self._stays[index] = _Stay.HERE
        self._share_hooks(index, loaded)
        for shared, hook in self._hooks[index]:
            shared.add(hook)
        super()._change(index, Condition.ALIVE, "")
        self.told("")

    def _not_come(self, index: int, failure: Failure) -> None:
        """Let go of the worker at `index`, whose model was not loaded."""
        if self._stays[index] is _Stay.COMING:
            self._leave(index)
            self.told(failure.getErrorMessage())

    def _leave(self, index: int) -> None:
        """Have the worker at `index` end once it has run the batches that it holds."""
        was, self._stays[index] = self._stays[index], _Stay.LEAVING
        for shared, hook in self._hooks.pop(index, []):
            shared.remove(hook)
        if was is _Stay.HERE:
            self._conditions[index] = Condition.DEAD
            self._set_takes_batches(index, False)
            self._changed()
        self._passing[index].quit().addCallback(partial(self._gone, index))

    def _retire(self, _: None) -> None:
        """Let go of what makes instances: all have ended."""
        for worker in self._passing:
            worker.retire()

    def _gone(self, index: int, _: None) -> None:
        """Have the worker at `index` ready for the next instance."""
        self._stays[index] = _Stay.AWAY

    def _change(self, index: int, condition: Condition, reason: str) -> None:
        """Note that the worker at `index` takes batches, or no more, unless it leaves anyway."""
        if self._stays[index] is _Stay.HERE:
            super()._change(index, condition, reason)

    def _with_shared_hooks(self, loaded: list[LoadedModel]) -> LoadedModel:
        """Return the first of `loaded`, with hooks that run in whatever instances are there."""
        first = loaded[0]
        if first.hands_over:
            self._shared = [None, None]
            self._keep_to_first()
            return first
        own = [[one.preprocess for one in loaded], [one.postprocess for one in loaded]]
        self._shared = [_shared(hooks) for hooks in own]
        for index, one in enumerate(loaded):
            self._share_hooks(index, one)
        preprocess, postprocess = self._shared
        return first._replace(
            preprocess=preprocess or first.preprocess,
            postprocess=postprocess or first.postprocess,
        )

    def _share_hooks(self, index: int, loaded: LoadedModel) -> None:
        """Remember the hooks of the worker at `index`, and with which others they are shared."""
        own = zip(self._shared, (loaded.preprocess, loaded.postprocess), strict=True)
        self._hooks[index] = [
            (shared, hook)
            for shared, hook in own
            if shared is not None and isinstance(hook, RemoteHook)
        ]


def _shared(hooks: list[Hook | RemoteHook | None]) -> SharedHook | None:
    """Return one hook that stands for the `hooks`, if they run in other processes."""
    remote = [hook for hook in hooks if isinstance(hook, RemoteHook)]
    return SharedHook(remote) if remote else None
