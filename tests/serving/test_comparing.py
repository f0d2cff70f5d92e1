"""Which rows of two answers are alike."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.core.ragged import ragged
from batcher.serving.comparing import Comparison, compared, copied


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        ([[1.0, 2.0]], [[1.0, 2.001]], Comparison(1, 1, 1, 1)),
        ([[1.0, 2.0]], [[1.0, 2.1]], Comparison(1, 0, 1, 1)),
        ([[1.0, 2.0]], [[2.0, 1.0]], Comparison(1, 0, 1, 0)),
        ([[1.0]], [[1.0]], Comparison(1, 1, 0, 0)),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], Comparison(1, 1, 1, 1)),
        ([[1e-9, 0.0]], [[0.0, 1e-9]], Comparison(1, 1, 1, 0)),
    ],
)
def test_floats_are_equal_within_the_tolerance_and_the_largest_is_the_label(
    mine: list[list[float]], theirs: list[list[float]], found: Comparison
) -> None:
    assert compared({"y": np.array(mine)}, {"y": np.array(theirs)}, 1e-3) == found


def test_whole_numbers_are_labels_and_have_no_tolerance() -> None:
    mine, theirs = np.array([1, 2, 3]), np.array([1, 2, 4])
    assert compared({"y": mine}, {"y": theirs}, 1.0) == Comparison(3, 2, 3, 2)


def test_rows_of_unequal_shapes_are_compared_by_shape_and_value() -> None:
    mine = ragged([np.ones(2), np.ones(3), np.ones(1)])
    theirs = ragged([np.ones(2), np.ones(2), np.zeros(1)])
    assert compared({"y": mine}, {"y": theirs}, 1e-3) == Comparison(3, 1, 0, 0)


def test_a_row_agrees_only_if_all_outputs_agree() -> None:
    mine = {"y": np.array([1, 2]), "z": np.array([[0.1, 0.9], [0.9, 0.1]])}
    theirs = {"y": np.array([1, 2]), "z": np.array([[0.1, 0.9], [0.1, 0.9]])}
    assert compared(mine, theirs, 1e-3) == Comparison(2, 1, 2, 1)


def test_a_copy_holds_nothing_of_the_batch_that_rows_were_cut_from() -> None:
    batch = np.arange(8.0)
    (rows,) = copied({"y": ragged([batch[:3], batch[3:8]])}).values()
    assert [row.tolist() for row in rows] == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert not any(np.shares_memory(row, batch) for row in rows)
