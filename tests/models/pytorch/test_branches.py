"""A branch of an exported program that values decide is noted: rows of a batch share the branch."""

from __future__ import annotations

from io import BytesIO

import pytest
import torch

from tests.support.model_folders import Folders


class ByValue(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch: torch.Tensor = torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))
        return branch


class BySize(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch: torch.Tensor = torch.cond(x.shape[0] > 3, lambda v: v * 2, lambda v: v - 1, (x,))
        return branch


class ByBuffer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("is_scaled", torch.tensor(True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        decision = self.get_buffer("is_scaled").logical_not()
        branch: torch.Tensor = torch.cond(decision, lambda v: v * 2, lambda v: v - 1, (x,))
        return branch


@pytest.mark.parametrize(
    ("module", "rows", "is_noted"),
    [
        (ByValue(), None, True),
        (BySize(), None, False),
        (ByValue(), 1, False),
        (ByBuffer(), None, False),
    ],
    ids=["a value", "a size", "a value, one row at a time", "a buffer"],
)
def test_a_branch_that_a_value_decides_is_noted_with_the_mend(
    folders: Folders, module: torch.nn.Module, rows: int | None, is_noted: bool
) -> None:
    axes = None if rows else ({0: torch.export.Dim("rows")},)
    file = BytesIO()
    program = torch.export.export(module, (torch.ones(rows or 4, 4),), dynamic_shapes=axes)
    torch.export.save(program, file)
    folders.load(folders.define("format: export\nfile: net.pt2", {"net.pt2": file.getvalue()}))
    notes = [line for line in folders.progress if "takes a branch" in line]
    assert [note.endswith("set max_batch_size to 1") for note in notes] == [True] * is_noted
