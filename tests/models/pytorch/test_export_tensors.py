"""What an exported program says of its tensors is held against the specification at load."""

from __future__ import annotations

import io

import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from tests.support.model_folders import FLOATS, Folders

ROWS = {0: torch.export.Dim.DYNAMIC}


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() * 2


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale


class Drawn(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layers(x)
        return made


def exported(
    folders: Folders, module: torch.nn.Module, *examples: torch.Tensor, inputs: str
) -> ModelDefinition:
    """Write the program of `module`, whose examples with axes have a free number of rows."""
    shapes = tuple(ROWS if example.ndim else {} for example in examples)
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, examples, dynamic_shapes=shapes), file)
    head = "format: export\nfile: model.pt2"
    return folders.define(head, files={"model.pt2": file.getvalue()}, inputs=inputs)


@pytest.mark.parametrize(
    ("declared", "got"),
    [
        ("dtype: UINT8, shape: [4]", "got uint8 of shape [4]"),
        ("dtype: FP32, shape: [3]", "got float32 of shape [3]"),
        ("dtype: FP32, shape: []", "got float32 of shape []"),
        ("dtype: FP32, shape: [1, 4]", "got float32 of shape [1, 4]"),
        ("dtype: FP32, shape: [-1], warmup_shape: [4]", "got float32 of shape [-1]"),
    ],
)
def test_a_dtype_or_shape_that_the_program_does_not_take_is_refused_with_both(
    folders: Folders, declared: str, got: str
) -> None:
    inputs = f"[{{name: x, {declared}}}]"
    definition = exported(folders, Doubled(), torch.ones(3, 4), inputs=inputs)
    with pytest.raises(ModelLoadError) as raised:
        folders.load(definition, warmup=False)
    assert "input 'x': expected rows as the exported program takes them, float32 of shape [4]" in (
        str(raised.value)
    )
    assert got in str(raised.value)


def test_a_number_for_the_whole_batch_is_refused_although_some_batches_would_fit(
    folders: Folders,
) -> None:
    inputs = "[{name: x, dtype: FP32, shape: [4]}, {name: scale, dtype: FP32, shape: []}]"
    definition = exported(folders, Scaled(), torch.ones(3, 4), torch.tensor(2.0), inputs=inputs)
    with pytest.raises(ModelLoadError, match=r"'scale': .* a single number for the whole batch"):
        folders.load(definition, warmup=False)


@pytest.mark.parametrize("training", [True, False])
def test_a_program_that_was_exported_in_training_mode_is_told_of(
    folders: Folders, training: bool
) -> None:
    module = Drawn().train(training)
    definition = exported(folders, module, torch.randn(3, 4), inputs=FLOATS.format("x"))
    loaded = folders.load(definition)
    found = any("training mode (batch_norm, dropout)" in note for note in loaded.model.notes)
    assert found is training
