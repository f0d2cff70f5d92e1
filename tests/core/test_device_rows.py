"""Arrays with a twin on a device: which views find their rows there, and how long a twin lives."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from batcher.core import device_rows
from batcher.core.device_rows import InputsOnDevice, RowsOnDevice, note_twin, rows_on_device
from batcher.core.spec import Array
from tests.support.models import rows


def noted(array: Array) -> list[int]:
    """Give `array` a twin, the text `twin`; return what hears of its end."""
    gone: list[int] = []
    assert note_twin(array, "twin", "cuda:0", gone.append)
    return gone


def test_a_view_finds_its_own_elements_in_the_twin() -> None:
    whole = rows(1, 2, 3, 4)
    gone = noted(whole)

    assert rows_on_device(whole) == RowsOnDevice("twin", "cuda:0", 0)
    assert rows_on_device(whole[1:3]) == RowsOnDevice("twin", "cuda:0", 4)
    assert rows_on_device(whole[1:3][1:]) == RowsOnDevice("twin", "cuda:0", 8)
    assert rows_on_device(whole[:3].reshape(3, 2, 2)) == RowsOnDevice("twin", "cuda:0", 0)
    assert gone == []


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.copy(),
        lambda array: array[[0, 1]],
        lambda array: array[::2],
        lambda array: array[:, 1:],
        lambda array: array.astype("<f8"),
        lambda array: array.view("<i4"),
        lambda array: array[:0],
        lambda array: np.concatenate([array]),
    ],
)
def test_what_is_no_view_of_whole_rows_finds_nothing(change: Any) -> None:
    whole = rows(1, 2, 3)
    noted(whole)

    assert rows_on_device(change(whole)) is None


def test_a_view_gets_no_twin_of_its_own() -> None:
    whole = rows(1, 2)

    assert not note_twin(whole[1:], "twin", "cuda:0", print)
    assert rows_on_device(whole[1:]) is None


def test_a_twin_is_gone_with_the_last_view_and_whoever_comes_to_that_place_finds_none() -> None:
    before = len(device_rows._TWINS)
    whole = rows(1, 2, 3)
    key, gone = id(whole), noted(whole)
    view = whole[1:]
    del whole
    gc.collect()
    assert gone == []

    del view

    assert gone == [key]
    assert len(device_rows._TWINS) == before


def test_rows_of_inputs_have_their_own_part_of_each_twin() -> None:
    inputs = InputsOnDevice({"x": rows(1, 2, 3), "z": np.zeros((3, 2, 5), "<f4")})
    inputs.twins = {"x": RowsOnDevice("a", "cuda:0", 4), "z": RowsOnDevice("b", "cuda:0", 0)}

    found = inputs.rows(1, 3)

    assert found["x"][:, 0].tolist() == [2, 3]
    assert found.twins == {
        "x": RowsOnDevice("a", "cuda:0", 8),
        "z": RowsOnDevice("b", "cuda:0", 10),
    }
