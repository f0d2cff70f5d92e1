"""The window of a history: the last traffic, wherever it was, without the edges."""

from __future__ import annotations

import pytest

from batcher.core.counters import ModelMetrics
from batcher.core.history import MAX_MARKS, STEP_S, WINDOW_S, History, Mark


def mark(time: float, rows: float, running: int = 0) -> Mark:
    empty = ModelMetrics("m", "1").mark(time, 0.0)
    return empty._replace(rows=rows, running=running)


def history_of(rows: list[float], step: float = STEP_S) -> History:
    history = History()
    for index, value in enumerate(rows):
        history.note(mark(index * step, value))
    return history


@pytest.mark.parametrize(
    ("rows", "window"),
    [
        ([0], None),
        ([0, 0, 0], None),
        ([0, 5], (0, 1)),
        ([0, 5, 9], (1, 2)),
        ([0, 0, 0, 3, 9, 9, 9], (2, 4)),
        ([0, 0, 0, 3, 9, 15, 18, 18, 18], (3, 5)),
        ([0, 3, 3, 3, 3, 6], (0, 5)),
        ([0, 3, 9, 9, 9, 9, 12, 18, 24], (1, 8)),
        ([0, 3, 6, 9, 12, 15, 15, 18, 19, 20, 21, 22], (7, 11)),
    ],
)
def test_the_window_is_around_the_traffic(
    rows: list[float], window: tuple[float, float] | None
) -> None:
    found = history_of(rows[:-1]).window(mark(len(rows) - 1, rows[-1]))
    assert (None if found is None else (found[0].time, found[1].time)) == window


def test_a_batch_that_runs_is_traffic() -> None:
    history = history_of([0, 0])
    found = history.window(mark(2, 0, running=3))
    assert found is not None
    assert (found[0].time, found[1].time) == (1, 2)


def test_a_window_is_bounded_and_so_are_the_marks() -> None:
    history = history_of([float(second) for second in range(200)])
    found = history.window(mark(200, 200))
    assert found is not None
    assert found[1].time - found[0].time == WINDOW_S
    assert len(history._marks) == MAX_MARKS


def test_what_was_is_not_forgotten_while_nothing_happens() -> None:
    history = history_of([0, 0, 5, 9, 15, *[15] * 1000])
    found = history.window(mark(2000, 15))
    assert found is not None
    assert (found[0].time, found[1].time) == (2, 3)
    assert len(history._marks) == 6


def test_many_readers_do_not_make_the_window_short() -> None:
    history = history_of([float(index) for index in range(1000)], step=STEP_S / 100)
    assert len(history._marks) <= 21


def test_the_numbers_of_a_version_that_ended_are_forgotten() -> None:
    history = history_of([0, 1])
    history.clear()
    assert history.window(mark(5, 1)) is None
