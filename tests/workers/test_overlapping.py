"""The worker's loop that has two batches under way: in which order it begins and ends them."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from batcher.batching.batch import Batch
from batcher.batching.worker import Outcome
from batcher.core.spec import Array
from batcher.errors import DeviceLost
from batcher.models import lost_devices
from batcher.workers import overlapping
from batcher.workers.overlapping import serve_overlapped
from tests.support.scheduling import part


class Scripted:
    """A model: notes what is begun and ended; `looks` is how often a batch still runs."""

    is_lost = False
    """Whether events of the device raise, as those of CUDA do after an assertion has failed."""

    def __init__(self, looks: int = 0, fails: dict[int, BaseException] | None = None) -> None:
        self.events: list[str] = []
        self.tasks: Any = SimpleQueue()
        self.outcomes: list[Outcome] = []
        self.looks = looks
        self.later: list[Batch] = []
        self._fails = fails or {}
        self._begun = 0

    def begin(self, collate: Callable[..., dict[str, Array]], rows: int) -> Any:
        self._begun += 1
        self.events.append(f"begin {self._begun}")
        if isinstance(error := self._fails.get(self._begun), ValueError):
            raise error
        return Under(self, self._begun, rows)

    def work_done(self) -> None:
        """Return None: nothing is counted."""

    def error_of(self, number: int) -> BaseException | None:
        return self._fails.get(number)

    def run(self, *batches: Batch) -> list[Outcome]:
        for batch in batches:
            self.tasks.put((batch, 0.0))
        if not self.later:
            self.tasks.put(None)
        serve_overlapped(
            self,  # type: ignore[arg-type]
            self.tasks,
            lambda: self.events.append("took"),
            lambda batch, outcome: self.outcomes.append(outcome),
        )
        return self.outcomes


class Under:
    """A batch under way; another comes into the queue while it runs."""

    def __init__(self, model: Scripted, number: int, rows: int) -> None:
        self._model, self._number, self._rows = model, number, rows
        self._looks = model.looks

    def is_done(self) -> bool:
        if self._model.is_lost:
            raise RuntimeError("CUDA error: device-side assert triggered")
        self._looks -= 1
        if self._looks == 0 and self._model.later:
            self._model.tasks.put((self._model.later.pop(), 0.0))
            self._model.tasks.put(None)
        return self._looks < 0

    def result(self) -> tuple[dict[str, Array], dict[int, BaseException]]:
        self._model.events.append(f"end {self._number}")
        if (error := self._model.error_of(self._number)) is not None:
            raise error
        return {"y": np.zeros((self._rows, 1), "<f4")}, {}


def batch(rows: int = 1) -> Batch:
    return Batch([part(rows)])


def test_the_next_batch_begins_before_the_first_has_ended() -> None:
    model = Scripted(looks=3)
    outcomes = model.run(batch(1), batch(2), batch(3))
    begun = [event for event in model.events if event != "took"]
    assert begun == ["begin 1", "begin 2", "end 1", "begin 3", "end 2", "end 3"]
    assert [len(outcome.results) for outcome in outcomes] == [1, 1, 1]


def test_a_batch_that_comes_while_one_runs_begins_at_once() -> None:
    model = Scripted(looks=3)
    model.later = [batch()]
    model.run(batch())
    assert model.events == ["took", "begin 1", "took", "begin 2", "end 1", "end 2"]


def test_a_batch_that_is_done_is_given_back_before_the_next_begins() -> None:
    model = Scripted(looks=0)
    model.run(batch(), batch())
    assert model.events == ["took", "begin 1", "end 1", "took", "begin 2", "end 2"]


def test_a_batch_that_cannot_begin_fails_alone() -> None:
    model = Scripted(looks=9, fails={2: ValueError("wrong")})
    outcomes = model.run(batch(), batch(), batch())
    assert [str(outcome.error) for outcome in outcomes] == ["None", "wrong", "None"]


@pytest.mark.parametrize("error", [RuntimeError("in the kernel"), SystemExit(3)])
def test_a_batch_that_ends_badly_fails_alone(error: BaseException) -> None:
    outcomes = Scripted(looks=9, fails={1: error}).run(batch(), batch())
    assert [outcome.error for outcome in outcomes] == [error, None]


def test_nothing_runs_after_the_device_was_lost() -> None:
    model = Scripted(looks=9, fails={1: DeviceLost("gone")})
    (outcome,) = model.run(batch(), batch(), batch())
    assert isinstance(outcome.error, DeviceLost)
    kept = [each for each in lost_devices._KEPT if isinstance(each, overlapping._Begun)]
    assert len(kept) == 2, "memory of a batch under way is not freed"


def test_a_lost_device_that_is_asked_for_the_end_of_a_batch_fails_that_batch() -> None:
    model = Scripted(looks=9, fails={1: DeviceLost("gone")})
    model.is_lost = True
    (outcome,) = model.run(batch())
    assert isinstance(outcome.error, DeviceLost)


def test_a_batch_is_not_charged_for_the_one_before() -> None:
    outcomes = Scripted(looks=9).run(batch(), batch())
    first, second = outcomes
    assert second.waited >= first.waited + first.compute - 1e-9
