"""Exported programs that take some numbers of rows only."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.core.run_sizes import RunSizes
from batcher.errors import ModelLoadError
from batcher.models.pytorch.batch_sizes import ANY_SIZE, BatchSizes, sizes_of
from tests.support.model_folders import Folders, answers

Dim = torch.export.Dim
ROWS = np.arange(128, dtype="f4").reshape(32, 4)


class Net(torch.nn.Module):
    """Doubles."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Squeezed(torch.nn.Module):
    """Loses the axis of rows where there is one row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 2).unsqueeze(2).squeeze()


def exported(axis: Any, module: torch.nn.Module | None = None) -> torch.export.ExportedProgram:
    axes = ({0: axis},) if axis is not None else None
    return torch.export.export(module or Net(), (torch.zeros(4, 4),), dynamic_shapes=axes)


def define(folders: Folders, program: torch.export.ExportedProgram) -> ModelDefinition:
    file = BytesIO()
    torch.export.save(program, file)
    return folders.define("format: export\nfile: net.pt2", {"net.pt2": file.getvalue()})


@pytest.mark.parametrize(
    ("axis", "sizes", "max_rows"),
    [
        (Dim("rows", max=32), BatchSizes(1, 32), 32),
        (Dim("rows", min=3, max=65536), BatchSizes(3, 65536), 65536),
        (2 * Dim("half", max=16), BatchSizes(4, 32, 2), 32),
        (Dim.DYNAMIC, BatchSizes(2), None),
        (None, BatchSizes(4, 4, 4), 4),
    ],
)
def test_the_numbers_of_rows_are_those_that_the_export_states(
    axis: Any, sizes: BatchSizes, max_rows: int | None
) -> None:
    found = sizes_of(exported(axis))
    assert found == sizes
    assert found.max_rows == max_rows


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (BatchSizes(4, 4, 4), "4 rows"),
        (BatchSizes(3, 32), "at least 3 rows, at most 32 rows"),
        (BatchSizes(4, 32, 2), "a multiple of 2 rows, at least 4 rows, at most 32 rows"),
        (ANY_SIZE, ""),
    ],
)
def test_the_numbers_are_told_in_words(sizes: BatchSizes, words: str) -> None:
    assert str(sizes) == words


@pytest.mark.parametrize(
    "program",
    [
        exported(Dim("rows", min=4, max=32)),
        exported(2 * Dim("half", max=16)),
        exported(None),
        exported(Dim.DYNAMIC, Squeezed()),
    ],
    ids=["at least 4", "even", "4 alone", "not 1"],
)
def test_smaller_batches_are_padded_and_a_line_says_so(
    folders: Folders, program: torch.export.ExportedProgram
) -> None:
    checked = folders.load(define(folders, program), max_batch_size=8)
    for rows in (1, 2, 3, 4):
        found = answers(checked, x=ROWS[:rows])["y"]
        np.testing.assert_array_equal(found, ROWS[:rows] * 2)
    assert [text for text in folders.progress if "smaller batches are padded" in text]


@pytest.mark.parametrize(("axis", "multiple"), [(2 * Dim("half", max=16), 2), (Dim.DYNAMIC, 1)])
def test_the_loop_is_told_of_which_rows_multiples_run(
    folders: Folders, axis: Any, multiple: int
) -> None:
    checked = folders.load(define(folders, exported(axis)), max_batch_size=8)
    assert checked.loaded().run_sizes == RunSizes(multiple)


def test_larger_batches_are_never_sent_and_a_line_says_so(folders: Folders) -> None:
    checked = folders.load(define(folders, exported(Dim("rows", max=32))), max_batch_size=64)
    assert checked.loaded().max_rows == 32
    assert "warming up, batch size 32" in folders.progress
    assert [text for text in folders.progress if "at most 32 rows" in text]


def test_a_program_of_any_size_is_called_as_it_is_and_nothing_is_told(folders: Folders) -> None:
    checked = folders.load(define(folders, exported(Dim.DYNAMIC)), max_batch_size=8)
    assert checked.loaded().max_rows is None
    assert not [text for text in folders.progress if text.startswith("note: ")]
    np.testing.assert_array_equal(answers(checked, x=ROWS[:1])["y"], ROWS[:1] * 2)


class Whole(torch.nn.Module):
    """Has an output of its own for all rows together, as long as many batches of it."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, torch.arange(6.0) + x.sum()


def test_an_output_of_no_row_is_not_cut_to_look_like_one_of_rows(folders: Folders) -> None:
    outputs = "[{name: y, dtype: FP32, shape: [4]}, {name: all, dtype: FP32, shape: []}]"
    file = BytesIO()
    torch.export.save(exported(None, Whole()), file)
    definition = folders.define(
        "format: export\nfile: net.pt2", {"net.pt2": file.getvalue()}, outputs=outputs
    )
    with pytest.raises(ModelLoadError, match="1 rows in, 6 rows out in output 'all'"):
        folders.load(definition, max_batch_size=1)
