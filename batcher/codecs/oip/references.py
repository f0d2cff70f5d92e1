"""Inputs of the Open Inference Protocol that are files: the parameter `ref` in place of `data`.

    {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1],
     "parameters": {"ref": "s3://photos/1.png"}}

The file holds all rows, and is read as the input says (see `formats/references.py`). The shape may
be left out, since a client need not know the size of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from batcher.codecs.content import Files
from batcher.codecs.formats.references import REF, rows_of_file
from batcher.codecs.oip.members import value_text
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.error_text import brief
from batcher.core.spec import Array, TensorSpec, shape_text
from batcher.errors import InvalidInput


class ReferencedInput(NamedTuple):
    """An input that is a file.

    Attributes:
        tensor: spec of the input.
        shape: sizes of the axes, rows first; None where the client did not say.
        address: where the file lies.
        limits: most rows and bytes of the input.
    """

    tensor: TensorSpec
    shape: tuple[int, ...] | None
    address: str
    limits: DecodingLimits

    def array(self, files: Files | None) -> Array:
        """Return the rows in the file; raises as `rows_of_file` does."""
        name, address = self.tensor.name, self.address
        if files is None:
            raise InvalidInput(
                f"input {name!r}: {REF}: expected a head of JSON that is not as long; got a file "
                "beside tensors in a large text"
            )
        rows = rows_of_file(files, address, self.tensor, self.limits)
        if self.shape is not None and rows.shape != self.shape:
            raise InvalidInput(
                f"input {name!r}, {brief(address, 200)}: expected the shape "
                f"{shape_text(self.shape)}; got {shape_text(rows.shape)}"
            )
        return rows


def referenced_input(
    entry: dict[str, Any],
    tensor: TensorSpec,
    parameters: dict[str, Any],
    limits: DecodingLimits,
    read_shape: Callable[[dict[str, Any], TensorSpec, str], tuple[int, ...]],
) -> ReferencedInput:
    """Return the input in an entry of `inputs` that has the parameter `ref`. Raises InvalidInput.

    `read_shape` returns the shape of an entry.
    """
    where, address = f"input {tensor.name!r}", parameters[REF]
    if not isinstance(address, str):
        raise InvalidInput(
            f"{where}: {REF}: expected the address of a file; got {value_text(address)}"
        )
    if entry.get("data") is not None or parameters.get("binary_data_size") is not None:
        raise InvalidInput(f"{where}: expected data, binary_data_size or {REF}; got two of them")
    shape = read_shape(entry, tensor, where) if "shape" in entry else None
    if shape is not None and not tensor.shape:
        shape = shape[:1]  # a row without axes may be written as an axis of size 1
    return ReferencedInput(tensor, shape, address, limits)
