"""What an exported program says of its tensors, held against `model.yaml` when the model is loaded.

    the program                              the load
    takes another dtype                      is refused
    takes other sizes of a row               is refused
    takes a tensor without an axis of rows   is refused
    was exported in training mode            goes on, with a note

All of these show again when a batch runs, but late, in words of PyTorch's, or not at all: a number
for the whole batch may fit a batch of some sizes by chance, and dropout has no wrong answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from batcher.core.spec import TensorSpec
from batcher.errors import ModelLoadError
from batcher.models.pytorch.tensors import torch_dtype

_MODES = {"train", "training"}
"""Names of the arguments that tell operators of their mode."""


def check_inputs(
    program: torch.export.ExportedProgram, tensors: Sequence[TensorSpec], places: Sequence[int]
) -> None:
    """Check dtypes and shapes of `tensors`, which go to `places` among the program's leaves.

    Raises:
        ModelLoadError: the program takes another dtype or shape; the message shows both.

    Any thread.
    """
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for tensor, place in zip(tensors, places, strict=True):
        if tensor.datatype.name != "BYTES":  # refused for every format of PyTorch's
            node = nodes[str(program.graph_signature.user_inputs[place])]
            _check_input(tensor, node.meta["val"])


def _check_input(tensor: TensorSpec, taken: torch.Tensor) -> None:
    """Raise ModelLoadError unless `tensor` is what the program takes. Any thread."""
    if not taken.ndim:
        raise ModelLoadError(
            f"input {tensor.name!r}: expected a program that takes it with a first axis of rows; "
            "got one that takes a single number for the whole batch. Export the module with one "
            "number for each row, or with the number as its constant"
        )
    sizes = [size if isinstance(size, int) else -1 for size in taken.shape[1:]]
    if taken.dtype != torch_dtype(tensor) or not _fits(tensor.shape, sizes):
        raise ModelLoadError(
            f"input {tensor.name!r}: expected rows as the exported program takes them, "
            f"{str(taken.dtype).partition('.')[2]} of shape {sizes}; got "
            f"{tensor.datatype.alias} of shape {list(tensor.shape)} in the specification"
        )


def training_note(program: torch.export.ExportedProgram) -> str:
    """Return the note that `program` was exported in training mode; empty if it was not.

    Any thread.
    """
    names = sorted({*_training_operators(program)})
    if not names:
        return ""
    return (
        f"the program was exported in training mode ({', '.join(names)}): answers may be drawn at "
        "random, or depend on the other rows of a batch. Call `.eval()` before the export"
    )


def _fits(declared: Sequence[int], taken: Sequence[int]) -> bool:
    """Return whether rows of the shape `declared` fit axes of the sizes `taken`. Any thread."""
    return len(declared) == len(taken) and all(
        size in (own, -1) for own, size in zip(declared, taken, strict=True)
    )


def _training_operators(program: torch.export.ExportedProgram) -> Iterator[str]:
    """Yield the names of the operators of `program` that are in training mode. Any thread."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        values = {
            each.name: value for each, value in zip(schema.arguments, node.args, strict=False)
        }
        if any({**values, **node.kwargs}.get(name) is True for name in _MODES):
            yield str(schema.name).rpartition("::")[2]
