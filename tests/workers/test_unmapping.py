"""The thread that gives mappings back."""

from __future__ import annotations

from mmap import mmap
from threading import Event, current_thread

import pytest

from batcher.core.mappings import Mapping, let_go_by
from batcher.workers.unmapping import unmap_on_thread


def test_a_mapping_is_closed_on_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, names = Event(), []

    def close(mapping: Mapping) -> None:
        names.append(current_thread().name)
        mmap.close(mapping)
        closed.set()

    monkeypatch.setattr(Mapping, "close", close, raising=False)
    unmap_on_thread()
    try:
        view = memoryview(Mapping(-1, 4096))
        del view
        assert closed.wait(5)
    finally:
        let_go_by(mmap.close)
    assert names == ["batcher-unmap"]
