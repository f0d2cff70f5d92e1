"""What one hook leaves for the next is found, however it is kept; what is no request's is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, ClassVar

import pytest

from batcher.models.hook_writes import writes_of

Arrays = dict[str, Any]
Decorated = Callable[[Any, Arrays], Arrays]

NUMBER = 0
STORE: dict[str, Any] = {}
VARIABLE: ContextVar[int] = ContextVar("rows")


def put(store: dict[str, Any], rows: int) -> None:
    store["rows"] = rows


def remembering(hook: Decorated) -> Decorated:
    @functools.wraps(hook)
    def remember(self: Any, inputs: Arrays) -> Arrays:
        self.rows = len(inputs["x"])
        return hook(self, inputs)

    return remember


def plain(hook: Decorated) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return hook(*args)

    return call


class Hooks:
    """Hooks that keep nothing."""

    rows: Any = None

    def preprocess(self, inputs: Arrays) -> Arrays:
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][: self.rows]}


class ByGlobal(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        global NUMBER
        NUMBER = len(inputs["x"])
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][:NUMBER]}


class ByStore(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        put(STORE, len(inputs["x"]))
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][: STORE["rows"]]}


class ByName(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        setattr(self, "rows", len(inputs["x"]))  # noqa: B010
        return inputs


class ByMapping(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        self.__dict__.update(rows=len(inputs["x"]))
        return inputs


class ByClass(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        type(self).rows = len(inputs["x"])
        return inputs


class ByBase(ByClass):
    def preprocess(self, inputs: Arrays) -> Arrays:
        return super().preprocess(inputs)


class ByProperty(Hooks):
    kept = 0

    @property
    def size(self) -> int:
        return self.kept

    def preprocess(self, inputs: Arrays) -> Arrays:
        self.kept = len(inputs["x"])
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][: self.size]}


class ByArgument(Hooks):
    def __init__(self) -> None:
        self.store: dict[str, Any] = {}

    def preprocess(self, inputs: Arrays) -> Arrays:
        put(self.store, len(inputs["x"]))
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][: self.store["rows"]]}


class ByDecorator(Hooks):
    @remembering
    def preprocess(self, inputs: Arrays) -> Arrays:
        return inputs


class UnderDecorator(Hooks):
    @plain
    def preprocess(self, inputs: Arrays) -> Arrays:
        self.rows = len(inputs["x"])
        return inputs


class ByClosure(Hooks):
    def __init__(self) -> None:
        rows = 0

        def first(inputs: Arrays) -> Arrays:
            nonlocal rows
            rows = len(inputs["x"])
            return inputs

        self.preprocess = first  # type: ignore[method-assign]
        self.postprocess = lambda outputs: {"y": outputs["y"][:rows]}  # type: ignore[method-assign]


class ByContext(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        VARIABLE.set(len(inputs["x"]))
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][: VARIABLE.get()]}


class ByLoop(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        for self.rows, _ in enumerate(inputs["x"]):
            pass
        return inputs


class ByQueue(Hooks):
    def __init__(self) -> None:
        self.sizes: SimpleQueue[int] = SimpleQueue()

    def preprocess(self, inputs: Arrays) -> Arrays:
        self.sizes.put_nowait(len(inputs["x"]))
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"][: self.sizes.get_nowait()]}


class WhereItDiffers(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        if self.rows != len(inputs["x"]):
            self.rows = len(inputs["x"])
        return inputs


class WhereItIsTaken(Hooks):
    def preprocess(self, inputs: Arrays) -> Arrays:
        if self.rows is None:
            self.rows = len(inputs["x"])
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        rows, self.rows = self.rows, None
        return {"y": outputs["y"][:rows]}


class MadeLate(Hooks):
    table: Any = None
    is_ready = False

    def preprocess(self, inputs: Arrays) -> Arrays:
        if not self.is_ready:
            self._make()
        return {"x": inputs["x"] * self.words}

    def _make(self) -> None:
        self.table = {"a": 1}
        self.is_ready = True

    @property
    def words(self) -> Any:
        if self.rows is not None:
            return self.rows
        self.rows = 1
        return self.rows

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"] * self.words * self.table["a"]}


class MadeAnyhow(Hooks):
    table: Any = None

    def preprocess(self, inputs: Arrays) -> Arrays:
        try:
            self.words  # noqa: B018
        except AttributeError:
            self.words = {"a": 1}
        self.table = self.table or {"b": 1}
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": outputs["y"] * self.words["a"] * self.table["b"]}


class Cached(Hooks):
    kept: ClassVar[dict[str, int]] = {}

    def preprocess(self, inputs: Arrays) -> Arrays:
        return {"x": [self.tried(each) + self.got(each) for each in inputs["x"]]}

    def postprocess(self, outputs: Arrays) -> Arrays:
        return {"y": [self.looked_up(each) for each in outputs["y"]]}

    def tried(self, word: str) -> int:
        try:
            return self.kept[word]
        except KeyError:
            self.kept[word] = len(word)
            return len(word)

    def looked_up(self, word: str) -> int:
        if word in self.kept:
            return self.kept[word]
        self.kept[word] = len(word)
        return len(word)

    def got(self, word: str) -> int:
        found = self.kept.get(word)
        if found is None:
            found = self.kept[word] = len(word)
        return found


class Counted(Hooks):
    def __init__(self) -> None:
        self.calls = {"first": 0, "last": 0}
        self.log: list[int] = []

    def preprocess(self, inputs: Arrays) -> Arrays:
        self.calls["first"] += 1
        self.log.append(len(inputs["x"]))
        return inputs

    def postprocess(self, outputs: Arrays) -> Arrays:
        self.calls["last"] += 1
        self.log.append(len(outputs["y"]))
        return outputs


HANDING = [
    *(ByGlobal, ByStore, ByName, ByMapping, ByClass, ByBase, ByProperty, ByArgument, ByDecorator),
    *(UnderDecorator, ByClosure, ByContext, ByLoop, ByQueue, WhereItDiffers, WhereItIsTaken),
]


@pytest.mark.parametrize("make", HANDING)
def test_what_is_handed_over_is_found(make: type[Hooks]) -> None:
    hooks = make()
    assert writes_of(hooks.preprocess).handed_to(writes_of(hooks.postprocess))


@pytest.mark.parametrize("make", [Hooks, MadeLate, MadeAnyhow, Cached, Counted])
def test_what_is_made_once_or_only_counted_is_not_handed_over(make: type[Hooks]) -> None:
    hooks = make()
    first, last = writes_of(hooks.preprocess), writes_of(hooks.postprocess)
    assert not first.handed_to(last)
    assert not first.kept
    assert not last.kept
