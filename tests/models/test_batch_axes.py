"""Rows of a batch that meet in an output run alone."""

from __future__ import annotations

import pytest

from tests.support.model_folders import Folders

WIDE = "[{name: y, dtype: FP32, shape: [-1]}]"


@pytest.mark.parametrize(
    ("output", "rows"),
    [
        ("values['x'] @ values['x'].T", 1),
        ("values['x']", 4),
        ("values['x'][:, :1]", 4),
        ("[row[: int(row[0])] for row in values['x']]", 4),
    ],
    ids=["each against each", "as wide as the rows", "one value", "unequal rows"],
)
def test_warm_up_shows_whether_rows_meet(folders: Folders, output: str, rows: int) -> None:
    source = f"class Model:\n    def predict(self, values):\n        return {{'y': {output}}}\n"
    checked = folders.load(folders.python(source, outputs=WIDE))
    assert checked.largest(4) == rows
    notes = [line for line in folders.progress if "rows would meet" in line]
    assert bool(notes) is (rows == 1)


def test_an_axis_that_is_as_long_as_one_batch_alone_is_none_of_the_batch(folders: Folders) -> None:
    source = "class Model:\n    def predict(self, values):\n        return values['x']\n"
    outputs = "[{name: y, dtype: FP32, shape: [4]}]"
    assert folders.load(folders.python(source, outputs=outputs)).largest(4) == 4


@pytest.mark.parametrize(("rows", "largest"), [(1, 1), (2, 4)])
def test_rows_of_a_sample_show_that_rows_meet_if_all_are_alike(
    folders: Folders, rows: int, largest: int
) -> None:
    source = (
        f"class Model:\n    sample = {{'x': [[1, 2, 3, 4]] * {rows}}}\n\n"
        "    def predict(self, values):\n        return values['x'] @ values['x'].T\n"
    )
    assert folders.load(folders.python(source, outputs=WIDE)).largest(4) == largest
