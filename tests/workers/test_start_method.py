"""Each model may say once how processes are started, and the first one counts."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest

from batcher.workers.start_method import CHANGED, StartMethod


@pytest.fixture
def _start_method() -> Iterator[None]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("_start_method")
def test_each_model_may_set_how_processes_are_started_and_the_first_counts() -> None:
    told = []
    for method in (None, "spawn", "spawn", "forkserver", None):
        state = StartMethod()
        if method:
            multiprocessing.set_start_method(method)
        told.append(state.put_back())
    assert told == [[], [], [], [CHANGED], []]
    assert multiprocessing.get_start_method() == "spawn"


@pytest.mark.usefixtures("_start_method")
def test_a_lock_that_a_library_makes_sets_no_start_method_for_the_next_model() -> None:
    state = StartMethod()
    multiprocessing.Lock()
    assert state.put_back() == []
    StartMethod()
    multiprocessing.set_start_method("spawn")
