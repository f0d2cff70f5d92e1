"""What hooks write into that they keep, found by reading their code."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from batcher.models import hook_writes
from batcher.models.hook_code import tree_of
from batcher.models.hook_writes import writes_of

Arrays = dict[str, Any]

SHARED = np.zeros((64, 4), "f4")
SEEN: list[int] = []


class Canvas:
    def __init__(self) -> None:
        self.pixels = np.zeros((64, 4), "f4")

    def draw(self, rows: Any) -> Any:
        self.pixels[: len(rows)] = rows
        return self.pixels[: len(rows)] * 2


def fill(target: Any, rows: Any) -> Any:
    target[: len(rows)] = rows
    return target


class Slotted:
    __slots__ = ("b",)

    def __init__(self) -> None:
        self.b = np.zeros((64, 4), "f4")

    def hook(self, inputs: Arrays) -> Arrays:
        self.b[: len(inputs["x"])] = inputs["x"]
        return {"x": self.b * 2}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.zeros(64, 4)

    def forward(self, rows: Any) -> Any:
        self.rows[: len(rows)] = rows
        return self.rows[: len(rows)]


class Keeping:
    """Hooks that write into what they keep."""

    shared = np.zeros((64, 4), "f4")

    def __init__(self) -> None:
        self.b = np.zeros((64, 4), "f4")
        self.parts: dict[str, Any] = {"b": self.b}
        self.canvas = Canvas()
        self.net = Net()
        self.rows: list[Any] = []
        self.n = 0

    def of_a_module(self, inputs: Arrays) -> Arrays:
        return {"x": self.net(inputs["x"])}

    def attribute(self, inputs: Arrays) -> Arrays:
        self.n = len(inputs["x"])
        return {"x": inputs["x"][: self.n]}

    def buffer(self, inputs: Arrays) -> Arrays:
        n = len(inputs["x"])
        self.b[:n] = inputs["x"]
        return {"x": self.b[:n] * 2}

    def alias(self, inputs: Arrays) -> Arrays:
        whole = self.b
        part = whole.reshape(-1)
        part[: inputs["x"].size] = inputs["x"].ravel()
        return {"x": whole * 2}

    def out(self, inputs: Arrays) -> Arrays:
        np.multiply(inputs["x"], 2, out=self.b[: len(inputs["x"])])
        return {"x": self.b + 1}

    def copied(self, inputs: Arrays) -> Arrays:
        np.copyto(self.b[: len(inputs["x"])], inputs["x"])
        return {"x": self.b + 1}

    def in_place(self, inputs: Arrays) -> Arrays:
        self.b.copy_(inputs["x"])  # type: ignore[attr-defined]
        return {"x": self.b * 2}

    def dictionary(self, inputs: Arrays) -> Arrays:
        self.parts["b"][: len(inputs["x"])] = inputs["x"]
        return {"x": self.parts["b"] * 2}

    def list_of(self, inputs: Arrays) -> Arrays:
        self.rows.clear()
        self.rows.extend(inputs["x"])
        return {"x": np.stack(self.rows)}

    def loop(self, inputs: Arrays) -> Arrays:
        for target, row in zip(self.b, inputs["x"], strict=False):
            target[:] = row
        return {"x": self.b * 2}

    def of_class(self, inputs: Arrays) -> Arrays:
        Keeping.shared[: len(inputs["x"])] = inputs["x"]
        return {"x": Keeping.shared * 2}

    def of_module(self, inputs: Arrays) -> Arrays:
        SHARED[: len(inputs["x"])] = inputs["x"]
        return {"x": SHARED * 2}

    def own_object(self, inputs: Arrays) -> Arrays:
        return {"x": self.canvas.draw(inputs["x"])}

    def function(self, inputs: Arrays) -> Arrays:
        return {"x": fill(self.b, inputs["x"]) * 2}

    def method(self, inputs: Arrays) -> Arrays:
        return self.buffer(inputs)

    def counter_that_is_read(self, inputs: Arrays) -> Arrays:
        self.n += 1
        return {"x": inputs["x"] + self.n}

    def named(self, inputs: Arrays) -> Arrays:
        setattr(self, "n", len(inputs["x"]))  # noqa: B010
        return {"x": inputs["x"][: self.n]}


class Sound:
    """Hooks that keep nothing of a request."""

    def __init__(self) -> None:
        self.words: Any = None
        self.cache: dict[int, Any] = {}
        self.mean = np.zeros(4, "f4")
        self.calls = 0

    def fresh(self, inputs: Arrays) -> Arrays:
        ids = np.zeros((len(inputs["text"]), 8), np.int64)
        for row, text in zip(ids, inputs["text"], strict=True):
            row[: len(text)] = list(text[:8])
        return {"ids": ids, "mask": (ids > 0).astype(np.float32)}

    def own_inputs(self, inputs: Arrays) -> Arrays:
        inputs["x"] -= self.mean
        inputs["y"] = np.add(self.mean, inputs["x"])
        return inputs

    def made_late(self, inputs: Arrays) -> Arrays:
        if self.words is None:
            self.words = np.ones(4, "f4")
        if len(inputs["x"]) not in self.cache:
            self.cache[len(inputs["x"])] = np.arange(len(inputs["x"]))
        return {"x": inputs["x"] * self.words}

    def counted(self, inputs: Arrays) -> Arrays:
        self.calls += 1
        return {"x": inputs["x"] * 2}

    def locals_of_all_kinds(self, inputs: Arrays) -> Arrays:
        import math as m

        rows: list[Any] = []
        for row in inputs["x"]:
            rows.append(row * m.pi)  # noqa: PERF401
        answer = {name: np.stack(rows) for name in ("x",)}
        answer.update(y=fill(np.zeros_like(inputs["x"]), inputs["x"]))
        return answer

    def nested(self, inputs: Arrays) -> Arrays:
        def cut(row: Any) -> Any:
            row[2:] = 0
            return row

        return {"x": np.stack([cut(row) for row in inputs["x"].copy()])}

    @staticmethod
    def static(inputs: Arrays) -> Arrays:
        inputs["x"] += 1
        return inputs


def bound(buffer: Any, inputs: Arrays) -> Arrays:
    buffer[: len(inputs["x"])] = inputs["x"]
    return {"x": buffer * 2}


def one(rows: Any) -> Any:
    return (two(rows), two(rows), two(rows), two(rows), two(rows), two(rows), two(rows), two(rows))


def two(rows: Any) -> Any:
    return (one(rows), one(rows), one(rows), one(rows), one(rows), one(rows), one(rows), one(rows))


def names_of(cls: type) -> list[str]:
    return [name for name in vars(cls) if not name.startswith("_") and name != "shared"]


@pytest.mark.parametrize("name", names_of(Keeping))
def test_what_a_hook_writes_into_is_found(name: str) -> None:
    assert writes_of(getattr(Keeping(), name)).kept


@pytest.mark.parametrize("name", names_of(Sound))
def test_a_hook_that_keeps_nothing_of_a_request_is_sound(name: str) -> None:
    assert not writes_of(getattr(Sound(), name)).kept


def test_hooks_of_other_kinds_are_read_too() -> None:
    class Called:
        def __call__(self, inputs: Arrays) -> Arrays:
            self.x = inputs["x"]
            return {"x": self.x}

    @functools.wraps(bound)
    def wrapped(*args: Any) -> Any:
        return bound(*args)

    assert writes_of(Called()).kept == {"self.x"}
    assert writes_of(Slotted().hook).kept == {"self.b"}
    assert writes_of(functools.partial(bound, SHARED)).kept == {"buffer"}
    assert writes_of(functools.partial(wrapped, SHARED)).kept == {"buffer"}


def test_functions_that_call_each_other_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def tree(function: Any) -> Any:
        read.append(function.__name__)
        return tree_of(function)

    monkeypatch.setattr(hook_writes, "tree_of", tree)
    assert not writes_of(one).kept
    assert read == ["one", "two"]


@pytest.mark.parametrize("hook", [len, dict, np.sort, eval("lambda inputs: inputs"), object()])
def test_code_that_cannot_be_read_is_no_error(hook: Any) -> None:
    assert not writes_of(hook).kept
