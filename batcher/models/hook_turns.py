"""Hooks of a model that keep what they write between two requests take turns.

The CPU pool runs the hooks of several requests at once. A hook that fills an array of its own and
returns it would so have one request answered with the rows of another:

    def preprocess(self, inputs):
        rows = len(inputs["x"])
        self.buffer[:rows] = inputs["x"]
        return {"x": self.buffer[:rows]}

Two things show whether it does such a thing: its code, which is read (`hook_writes.py`), and its
first calls, those of warm-up among them. These run one at a time, and what they return is copied.

    found                                                    what holds from then on
    code that writes into the model, or into what else is    hooks of the model take turns, results
    kept                                                     are copied, and the log says why
    results of two calls in the same memory, which is not    the same
    read-only
    code of `preprocess` or `predict` that writes what       requests run one at a time, from one
    is read after it                                         hook to the other
    neither                                                  hooks run side by side, nothing is
                                                             copied
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from threading import Lock
from typing import Any, Final

import numpy as np

from batcher.core.ragged import copied, is_ragged
from batcher.core.spec import Array
from batcher.models.hook_writes import Found, nothing_found, writes_of
from batcher.models.protocol import Arrays, Hook, Model

EQUAL_CALLS: Final = 3
"""Calls with results of the same shapes that show what a hook does: some hold a buffer for each
shape, others two that they use in turn.
"""

MOST_CALLS: Final = 16
"""Calls after which a hook is known even so: texts may never make results of the same shapes."""

Take = Callable[[Any], dict[str, Array]]


class HookTurns:
    """The turns of the hooks of one model. Any thread.

    Attributes:
        lock: held by the hook whose turn it is.
        watched: how many of the hooks are not known yet.
        notes: by hook, why the hooks take turns for good, in words; empty if they do not.
        told: those of the notes that the log has.
        context: the context variables of hooks that hand something over, whatever their threads.
        hands_over: whether `preprocess` or `predict` writes what is read after it.
        whole_requests: whether `predict` is the one that writes or reads that.
    """

    def __init__(self) -> None:
        """Begin with no hook."""
        self.lock = Lock()
        self.watched = 0
        self.notes: dict[str, str] = {}
        self.told: set[str] = set()
        self.context = Context()
        self.hands_over = self.whole_requests = False


class WatchedHook:
    """A hook that is called as before, but takes turns with others until it is known to be sound.

    Any thread.
    """

    def __init__(self, hook: Hook, name: str, turns: HookTurns) -> None:
        """Watch `hook`, called `name` in notes, which takes turns with the others of `turns`."""
        self._hook = hook
        self._name = name
        self.turns = turns
        turns.watched += 1
        self._is_watched = True
        self._earlier: list[Array] = []
        self._calls: Counter[object] = Counter()

    def __call__(self, values: Any) -> Any:
        """Return what the hook returns."""
        return self._hook(values)

    def arrays(self, values: Arrays, take: Take) -> dict[str, Array]:
        """Return the arrays that `take` finds in what the hook makes of `values`."""
        turns = self.turns
        if not (turns.watched or turns.notes):
            return take(self._hook(values))
        with turns.lock:
            if not self._is_watched:
                return _copies(take(self._run(values)))
            given = _parts(values)
            found = take(self._run(values))
            self._note(found, given)
            return _copies(found)

    def _run(self, values: Arrays) -> Any:
        """Return what the hook returns, whose turn it is."""
        turns = self.turns
        return turns.context.run(self._hook, values) if turns.hands_over else self._hook(values)

    def _note(self, found: Arrays, given: list[Array]) -> None:
        """Take note of a call that was `given` arrays and `found` others."""
        new = {
            name: parts
            for name, array in found.items()
            if not _share(parts := _parts({name: array}), given)
        }
        notes = [
            self._memory_note(name) for name, parts in new.items() if _share(parts, self._earlier)
        ]
        for parts in new.values():
            self._earlier += parts  # held, so that no later call is given this memory by chance
        shapes = tuple(array.shape for array in found.values())
        self._calls[shapes] += 1
        is_known = self._calls[shapes] >= EQUAL_CALLS or self._calls.total() >= MOST_CALLS
        if notes or is_known:
            if notes:
                self.turns.notes.setdefault(self._name, notes[0])
            self.turns.watched -= 1
            self._is_watched = False
            self._earlier.clear()

    def _memory_note(self, output: str) -> str:
        return (
            f"{self._name} returns {output!r} in the same memory at each call, so the hooks take "
            "turns and results are copied. Where the array never changes, say so "
            "(`array.flags.writeable = False`), or return a new one: hooks run side by side then"
        )


def watch_hooks(model: Model) -> bool:
    """Have the hooks of `model`, which is loaded, take turns until they are known.

    Return whether code that runs a batch writes into what the model keeps, and so may answer with
    memory that a later batch writes into. Any thread.
    """
    hooks = {name: getattr(model, name) for name in ("preprocess", "postprocess")}
    turns, found = HookTurns(), {}
    for name, hook in hooks.items():
        if hook is not None and not isinstance(hook, WatchedHook):
            found[name] = _read(hook)
            setattr(model, name, WatchedHook(hook, name, turns))
            turns.notes |= _code_notes(name, found[name])
    predict = _read_predict(model.author)
    handed = _handed_over(found, predict)
    for first, names in handed.items():
        turns.notes[first] = _handed_note(first, names)
        turns.hands_over = True
    before = found.get("preprocess", nothing_found())
    turns.whole_requests = "predict" in handed or bool(before.handed_to(predict))
    return bool(predict.kept)


def watched(hook: Hook, name: str) -> WatchedHook:
    """Return `hook`, called `name`, that takes turns with itself until it is known. Any thread."""
    turns = HookTurns()
    turns.notes |= _code_notes(name, _read(hook))
    return WatchedHook(hook, name, turns)


def _read(hook: Hook) -> Found:
    """Return what the code of `hook` writes into; nothing if it cannot be read. Any thread."""
    try:
        return writes_of(hook)
    # Code of all kinds is looked at, and what it does is known from its calls as well.
    except Exception:
        return nothing_found()


def _read_predict(author: object) -> Found:
    """Return what the object of an author's class writes into while it runs a batch. Any thread."""
    found = nothing_found()
    for name in ("predict", "forward"):
        with suppress(Exception):  # a property of any kind
            found.add(writes_of(getattr(author, name, None)))
    return found


def _handed_over(hooks: Mapping[str, Found], predict: Found) -> dict[str, set[str]]:
    """Return what `preprocess`, or `predict`, leaves for what runs after it. Any thread."""
    first = hooks.get("preprocess", nothing_found())
    last = hooks.get("postprocess", nothing_found())
    handed = {
        "preprocess": first.handed_to(predict) | first.handed_to(last),
        "predict": predict.handed_to(last),
    }
    return {name: names for name, names in handed.items() if names}


def _code_notes(name: str, found: Found) -> dict[str, str]:
    """Return the note that the hook called `name` writes into what is kept; mostly none."""
    if not found.kept:
        return {}
    return {
        name: f"{name} writes into {_listed(found.kept)}, which it keeps from request to request, "
        "so the hooks take turns. Where a hook makes new arrays at each call, and keeps nothing of "
        "a request, hooks run side by side"
    }


def _handed_note(first: str, names: set[str]) -> str:
    """Return the note that `first` leaves `names` for what runs after it. Any thread."""
    return (
        f"{first} writes {_listed(names)}, which is read after it, so requests run one at a time, "
        "and share no batches. They do if preprocess returns that beside the inputs, and predict "
        "beside the outputs"
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def turns_of(model: Model) -> HookTurns | None:
    """Return the turns of the hooks of `model`; None if it has no hooks. Any thread."""
    for hook in (model.preprocess, model.postprocess):
        if isinstance(hook, WatchedHook):
            return hook.turns
    return None


def new_notes(model: Model) -> list[str]:
    """Return what is known since the last call of how hooks of `model` run. Inference thread."""
    turns = turns_of(model)
    if turns is None:
        return []
    found = [note for note in turns.notes.values() if note not in turns.told]
    turns.told.update(found)
    return found


def arrays_of(hook: Hook, values: Arrays, take: Take) -> dict[str, Array]:
    """Return the arrays that `take` finds in what `hook` makes of `values`. Any thread."""
    return hook.arrays(values, take) if isinstance(hook, WatchedHook) else take(hook(values))


def _copies(found: Arrays) -> dict[str, Array]:
    return {name: copied(array) for name, array in found.items()}


def _parts(arrays: Arrays) -> list[Array]:
    """Return each array, and in the place of ragged rows each row."""
    return [part for array in arrays.values() for part in (array if is_ragged(array) else [array])]


def _share(arrays: list[Array], others: list[Array]) -> bool:
    """Return whether one of `arrays` that may be written into lies in memory of `others`."""
    return any(
        np.may_share_memory(array, other)
        for array in arrays
        if _is_writeable(array)
        for other in others
    )


def _is_writeable(array: Array) -> bool:
    while not array.flags.writeable and isinstance(array.base, np.ndarray):
        array = array.base
    return bool(array.flags.writeable)
