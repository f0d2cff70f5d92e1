"""Mappings are given back once, by whoever was chosen, when their last view is gone."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from mmap import mmap

import numpy as np
import pytest

from batcher.core.mappings import Mapping, close, let_go_by


@pytest.fixture
def let_go() -> Iterator[list[mmap]]:
    """Return the list of mappings that were handed over."""
    found: list[mmap] = []
    let_go_by(found.append)
    yield found
    let_go_by(close)


def test_a_mapping_is_handed_over_open_when_its_last_view_is_gone(let_go: list[mmap]) -> None:
    array = np.frombuffer(memoryview(Mapping(-1, 4096))[64:128], np.uint8)
    part = array[:8]
    del array
    assert not let_go
    del part
    (mapping,) = let_go
    assert not mapping.closed
    mapping.close()
    let_go.clear()
    del mapping
    assert not let_go


def test_without_another_choice_a_mapping_is_closed_where_its_last_view_is_gone() -> None:
    before = _mapped_bytes()
    view = memoryview(Mapping(-1, 64 << 20))
    assert _mapped_bytes() >= before + (64 << 20)
    del view
    assert _mapped_bytes() < before + (64 << 20)


class Circle:
    """An object that holds a mapping, the view of the mapping, and itself."""

    def __init__(self) -> None:
        self.mapping = Mapping(-1, 64 << 20)
        self.view = memoryview(self.mapping)
        self.circle = self


def test_a_mapping_in_a_circle_of_objects_is_given_back_with_its_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unraised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraised.append)
    before = _mapped_bytes()
    Circle()
    gc.collect()
    assert not unraised
    assert _mapped_bytes() < before + (64 << 20)


def _mapped_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096
