"""All threads of the program allocate from one heap, unless the environment says otherwise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from batcher.app import process_settings


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Calls of `mallopt`, which are not made."""
    found: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *arguments: found.append(arguments))
    monkeypatch.setattr(process_settings.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    return found


def test_threads_share_one_heap(calls: list[Any]) -> None:
    process_settings.use_one_heap()
    assert calls == [(-8, 1)]


def test_the_environments_number_of_heaps_is_kept(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    process_settings.use_one_heap()
    assert calls == []


def test_another_c_library_has_nothing_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_settings.ctypes, "CDLL", lambda name: SimpleNamespace())
    process_settings.use_one_heap()
