"""Hooks of a model that keep what they write between two requests take turns.

The CPU pool runs the hooks of several requests at once. A hook that fills an array of its own and
returns it would so have one request answered with the rows of another:

    def preprocess(self, inputs):
        rows = len(inputs["x"])
        self.buffer[:rows] = inputs["x"]
        return {"x": self.buffer[:rows]}

The first calls of each hook, those of warm-up among them, show whether it does such a thing. They
run one at a time, and what they return is copied:

    what the first calls show                                what holds from then on
    results share memory, which is not read-only             hooks of the model take turns, results
                                                             are copied
    an attribute of the model is set anew or written into    the same, and the log names it: what
                                                             one hook leaves there for the other may
                                                             be of another request
    none of these                                            hooks run side by side, nothing is
                                                             copied
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

import numpy as np

from batcher.core.ragged import copied, is_ragged
from batcher.core.spec import Array
from batcher.models.protocol import Arrays, Hook, Model

EQUAL_CALLS: Final = 3
"""Calls with results of the same shapes that show what a hook does: some hold a buffer for each
shape, others two that they use in turn.
"""

MOST_CALLS: Final = 16
"""Calls after which a hook is known even so: texts may never make results of the same shapes."""

MOST_COMPARED_BYTES: Final = 1 << 20
"""Bytes of an array from which its content is not looked at: such an array may be weights."""

Take = Callable[[Any], dict[str, Array]]

State = dict[str, tuple[Any, Any]]


class HookTurns:
    """The turns of the hooks of one model. Any thread.

    Attributes:
        lock: held by the hook whose turn it is.
        watched: how many of the hooks are not known yet.
        compares: whether attributes of the model are compared. In service `predict` changes them
            too, so this ends with warm-up, if there is one.
        notes: by hook, why the hooks take turns for good, in words; empty if they do not.
    """

    def __init__(self) -> None:
        """Begin with no hook."""
        self.lock = Lock()
        self.watched = 0
        self.compares = True
        self.notes: dict[str, str] = {}


class WatchedHook:
    """A hook that is called as before, but takes turns with others until it is known to be sound.

    Any thread.
    """

    def __init__(self, hook: Hook, name: str, turns: HookTurns) -> None:
        """Watch `hook`, called `name` in notes, which takes turns with the others of `turns`."""
        self._hook = hook
        self._name = name
        self._owner = getattr(hook, "__self__", hook)
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
                return _copies(take(self._hook(values)))
            given, before = _parts(values), self._state()
            found = take(self._hook(values))
            self._note(found, given, _changed(before, self._state()))
            return _copies(found)

    def _state(self) -> State:
        return _state_of(self._owner) if self.turns.compares else {}

    def _note(self, found: Arrays, given: list[Array], changed: list[str]) -> None:
        """Take note of a call that was `given` arrays, `found` others and `changed` attributes."""
        new = {
            name: parts
            for name, array in found.items()
            if not _share(parts := _parts({name: array}), given)
        }
        notes = [
            self._memory_note(name) for name, parts in new.items() if _share(parts, self._earlier)
        ]
        # The first call may make what is then used.
        if self._calls and not notes:
            notes = [self._state_note(name) for name in changed]
        for parts in new.values():
            self._earlier += parts  # held, so that no later call is given this memory by chance
        shapes = tuple(array.shape for array in found.values())
        self._calls[shapes] += 1
        is_known = self._calls[shapes] >= EQUAL_CALLS or self._calls.total() >= MOST_CALLS
        if notes or is_known:
            if notes:
                self.turns.notes[self._name] = notes[0]
            self.turns.watched -= 1
            self._is_watched = False
            self._earlier.clear()

    def _memory_note(self, output: str) -> str:
        return (
            f"{self._name} returns {output!r} in the same memory at each call, so the hooks take "
            "turns and results are copied. Where the array never changes, say so "
            "(`array.flags.writeable = False`), or return a new one: hooks run side by side then"
        )

    def _state_note(self, attribute: str) -> str:
        return (
            f"{self._name} changes the attribute {attribute!r} at each call, so the hooks take "
            "turns. Hooks of other requests run between preprocess and postprocess of one: what "
            "postprocess needs to know of its request, preprocess returns beside the inputs, and "
            "predict hands on"
        )


def watch_hooks(model: Model) -> None:
    """Have the hooks of `model`, which is loaded, take turns until they are known. Any thread."""
    turns = HookTurns()
    for name in ("preprocess", "postprocess"):
        hook = getattr(model, name)
        if hook is not None and not isinstance(hook, WatchedHook):
            setattr(model, name, WatchedHook(hook, name, turns))


def watched(hook: Hook, name: str) -> WatchedHook:
    """Return `hook`, called `name`, that takes turns with itself until it is known. Any thread."""
    return WatchedHook(hook, name, HookTurns())


def turns_of(model: Model) -> HookTurns | None:
    """Return the turns of the hooks of `model`; None if it has no hooks. Any thread."""
    for hook in (model.preprocess, model.postprocess):
        if isinstance(hook, WatchedHook):
            return hook.turns
    return None


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


def _state_of(owner: object) -> State:
    """Return the attributes of `owner` by name, each with what tells whether it was written into.

    The buffers of a module of PyTorch are attributes too.
    """
    attributes = getattr(owner, "__dict__", {})
    attributes = {**attributes, **attributes.get("_buffers", {})}
    return {name: (value, _content(value)) for name, value in attributes.items()}


def _content(value: object) -> object:
    if isinstance(value, np.ndarray) and value.nbytes <= MOST_COMPARED_BYTES:
        return value.tobytes()
    try:
        # A tensor of PyTorch, which need not be imported here, counts what writes into it.
        return getattr(value, "_version", None)
    except RuntimeError:  # and one that was made in inference mode does not
        return None


def _changed(before: State, after: State) -> list[str]:
    """Return the names of attributes that were set anew or written into."""
    return [
        name
        for name, (value, content) in after.items()
        if name not in before or before[name][0] is not value or before[name][1] != content
    ]
