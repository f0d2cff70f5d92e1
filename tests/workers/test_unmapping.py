"""The thread that gives mappings back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from mmap import mmap
from threading import Event, current_thread

import pytest

from batcher.core import mappings
from batcher.core.mappings import Mapping, close, let_go_by
from batcher.workers.unmapping import unmap_on_thread


@pytest.fixture
def thread() -> Iterator[None]:
    """Have the thread while a test runs."""
    unmap_on_thread()
    yield
    let_go_by(close)


def test_a_mapping_is_closed_on_a_thread_of_its_own(
    thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, names = Event(), []

    def close_noted(mapping: Mapping) -> None:
        names.append(current_thread().name)
        mmap.close(mapping)
        closed.set()

    monkeypatch.setattr(Mapping, "close", close_noted, raising=False)
    view = memoryview(Mapping(-1, 4096))
    del view
    assert closed.wait(5)
    assert names == ["batcher-unmap"]


def test_the_thread_outlives_a_mapping_that_still_has_views(
    thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's collector hands over a mapping and its views together."""
    closed = Event()

    def close_noted(mapping: Mapping) -> None:
        mmap.close(mapping)
        closed.set()

    monkeypatch.setattr(Mapping, "close", close_noted, raising=False)
    mapping = Mapping(-1, 4096)
    view = memoryview(mapping)
    mappings._let_go(mapping)
    del mapping
    view[:1] = b"1"
    other = memoryview(Mapping(-1, 4096))
    del other
    assert closed.wait(5)
    assert bytes(view[:1]) == b"1"


def test_a_copy_of_the_process_closes_mappings_itself(thread: None) -> None:
    child = os.fork()
    if not child:
        os._exit(0 if mappings._let_go is close else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
