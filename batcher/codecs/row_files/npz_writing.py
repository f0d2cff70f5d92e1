"""Answers as a file of numpy arrays (`.npz`), one array for each output.

The head of an array says how many rows follow, which nobody knows before the end. So the elements
of each output go into a part of their own, and at the end the parts become one file. Rows without
an answer are left out; the file of errors names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy_format

from batcher.core.portions import Answer, Assemble, Portion, State, Written
from batcher.core.ragged import is_ragged, row_shapes
from batcher.core.spec import ModelSpec, TensorSpec, shape_text
from batcher.errors import BatcherError, InvalidInput, ModelContractError

COPY_BYTES = 1 << 20
"""Bytes that are copied at once."""

FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""Time of each array in the file: the same answers are the same bytes."""


class NpzWriter:
    """Writes the outputs as arrays.

    Attributes:
        parts: what the parts of the output are called.
        state: what the next writer of this output must know: rows and shapes so far.
    """

    def __init__(self, spec: ModelSpec, state: State) -> None:
        """Begin, or go on with `state`. Raises InvalidInput: an output is of BYTES."""
        for tensor in spec.outputs:
            if tensor.datatype.name == "BYTES":
                raise InvalidInput(
                    f"output {tensor.name!r}: expected numbers for .npz; got BYTES, which JSON "
                    "lines and CSV hold"
                )
        self.parts: Sequence[str] = [tensor.name for tensor in spec.outputs]
        self.state = state
        self.assemble: Assemble | None = self._assemble
        self._outputs = spec.outputs
        state.setdefault("rows", 0)
        state.setdefault("shapes", {})

    def write(self, portion: Portion, answers: Sequence[Answer]) -> Written:
        """Return the elements of each output; rows of another shape than the first are refused."""
        refused: dict[int, BatcherError] = {}
        fitting: list[Answer] = []
        for answer in answers:
            fault = self._fault(answer)
            if fault:
                refused.update(dict.fromkeys(answer.rows, ModelContractError(fault)))
            else:
                fitting.append(answer)
        if not fitting:
            return Written([b""] * len(self._outputs), refused)
        self.state["rows"] += sum(len(answer.rows) for answer in fitting)
        return Written([self._elements(tensor, fitting) for tensor in self._outputs], refused)

    def _elements(self, tensor: TensorSpec, answers: list[Answer]) -> bytes:
        arrays = [answer.response.outputs[tensor.name] for answer in answers]
        if len(arrays) == 1:
            return arrays[0].tobytes()
        order = np.argsort([row for answer in answers for row in answer.rows], kind="stable")
        return np.concatenate(arrays)[order].tobytes()

    def _fault(self, answer: Answer) -> str:
        """Return why the arrays cannot hold `answer`; the first answer says their shapes."""
        shapes = self.state["shapes"]
        for tensor in self._outputs:
            array = answer.response.outputs[tensor.name]
            if is_ragged(array):
                return (
                    f"output {tensor.name!r}: expected rows of one shape; got {row_shapes(array)}"
                )
            shape = list(array.shape[1:])
            if shapes.setdefault(tensor.name, shape) != shape:
                return (
                    f"output {tensor.name!r}: expected rows of the shape of the first, "
                    f"{shape_text(tuple(shapes[tensor.name]))}; got {shape_text(array.shape[1:])}"
                )
        return ""

    def _assemble(self, parts: Sequence[BinaryIO], file: BinaryIO) -> None:
        """Write the whole output to `file`, from `parts` at their beginnings."""
        with ZipFile(file, "w", ZIP_STORED) as archive:
            for tensor, part in zip(self._outputs, parts, strict=True):
                entry = ZipInfo(f"{tensor.name}.npy", FIRST_DATE)
                with archive.open(entry, "w", force_zip64=True) as target:
                    self._write_array(tensor, part, target)

    def _write_array(self, tensor: TensorSpec, part: BinaryIO, target: IO[bytes]) -> None:
        free = [max(size, 0) for size in tensor.shape]
        shape = (self.state["rows"], *self.state["shapes"].get(tensor.name, free))
        header = {
            "descr": npy_format.dtype_to_descr(np.dtype(tensor.datatype.numpy)),
            "fortran_order": False,
            "shape": tuple(shape),
        }
        npy_format.write_array_header_1_0(target, header)
        while content := part.read(COPY_BYTES):
            target.write(content)
