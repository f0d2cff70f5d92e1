"""Answers as a Parquet file (extra `parquet`): one column for each output.

    output                         column
    rows of one element            numbers, booleans, or strings for BYTES
    rows with axes                 lists, nested as the axes are
    a row without an answer        null in every column

A Parquet file ends with a description of all its rows, so it cannot be gone on with. Its rows wait
in a part as Arrow's own messages, and become the file at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, BinaryIO

import numpy as np

from batcher.codecs.row_files.parquet_reading import pyarrow
from batcher.core.portions import Answer, Assemble, Portion, State, Written
from batcher.core.ragged import is_ragged
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import BatcherError, InvalidInput, ModelContractError

GROUP_BYTES = 16 << 20
"""Bytes of a row group: what is held while the file is written."""


class ParquetWriter:
    """Writes the outputs as columns.

    Attributes:
        parts: what the parts of the output are called.
        state: what the next writer of this output must know: nothing.
    """

    parts: Sequence[str] = ("rows",)

    def __init__(self, spec: ModelSpec, state: State) -> None:
        """Begin, or go on. Raises InvalidInput: an output is of a datatype that Parquet lacks."""
        self._arrow = pyarrow()
        self.state = state
        self.assemble: Assemble | None = self._assemble
        self._outputs = spec.outputs
        fields = [(tensor.name, _type(tensor, self._arrow)) for tensor in spec.outputs]
        self._schema = self._arrow.schema(fields)

    def write(self, portion: Portion, answers: Sequence[Answer]) -> Written:
        """Return the rows of `portion`; rows with texts that are no UTF-8 are refused."""
        refused: dict[int, BatcherError] = {}
        for answer in answers:
            refused |= self._faults(answer)
        count = len(portion.places)
        arrays = [self._column(tensor, answers, count, refused) for tensor in self._outputs]
        batch = self._arrow.record_batch(arrays, schema=self._schema)
        return Written([batch.serialize().to_pybytes()], refused)

    def _faults(self, answer: Answer) -> dict[int, BatcherError]:
        """Return the rows of `answer` with texts that are no UTF-8, and no others."""
        found: dict[int, BatcherError] = {}
        for tensor in self._outputs:
            values = answer.response.outputs[tensor.name]
            if tensor.datatype.name != "BYTES" or _not_utf8(_elements(values)) is None:
                continue
            for row, value in zip(answer.rows, values, strict=True):
                err = _not_utf8(np.asarray(value, object).ravel().tolist())
                if err is not None:
                    what = f"output {tensor.name!r}: expected UTF-8 for Parquet: {err}"
                    found[row] = ModelContractError(what)
        return found

    def _column(
        self,
        tensor: TensorSpec,
        answers: Sequence[Answer],
        count: int,
        refused: Collection[int],
    ) -> Any:
        if len(answers) == 1 and len(answers[0].rows) == count and not refused:
            array = answers[0].response.outputs[tensor.name]
            if not array.dtype.hasobject and array.size:
                return self._whole(array if _depth(tensor) else array.reshape(count))
        rows: list[Any] = [None] * count
        for answer in answers:
            values = answer.response.outputs[tensor.name]
            for row, value in zip(answer.rows, values, strict=True):
                rows[row] = None if row in refused else _plain(value, tensor)
        return self._arrow.array(rows, _type(tensor, self._arrow))

    def _whole(self, array: Array) -> Any:
        """Return rows of one shape as lists, without a step for each value."""
        column = self._arrow.array(np.ascontiguousarray(array).reshape(-1))
        for size in array.shape[:0:-1]:
            offsets = size * np.arange(len(column) // size + 1, dtype=np.int32)
            column = self._arrow.ListArray.from_arrays(offsets, column)
        return column

    def _assemble(self, parts: Sequence[BinaryIO], file: BinaryIO) -> None:
        """Write the file, from the messages of the part."""
        ipc, (part,) = self._arrow.ipc, parts
        with self._arrow.parquet.ParquetWriter(file, self._schema) as writer:
            held: list[Any] = []
            while part.peek(1):  # type: ignore[attr-defined]  # a part is a buffered file
                message = ipc.read_message(part)
                held.append(ipc.read_record_batch(message, self._schema))
                if sum(batch.nbytes for batch in held) >= GROUP_BYTES:
                    writer.write_table(self._arrow.Table.from_batches(held, self._schema))
                    held = []
            if held:
                writer.write_table(self._arrow.Table.from_batches(held, self._schema))


def _depth(tensor: TensorSpec) -> int:
    """Return how many levels of lists a column has."""
    return 0 if tensor.shape == (1,) else len(tensor.shape)


def _type(tensor: TensorSpec, arrow: Any) -> Any:
    """Return the type of the column of `tensor`. Raises InvalidInput: there is none."""
    name = tensor.datatype.name
    if name == "BF16":
        raise InvalidInput(
            f"output {tensor.name!r}: Parquet has no BF16: JSON lines, CSV and .npz hold it"
        )
    kind = arrow.string() if name == "BYTES" else arrow.from_numpy_dtype(tensor.datatype.numpy)
    for _ in range(_depth(tensor)):
        kind = arrow.list_(kind)
    return kind


def _elements(array: Array) -> list[bytes]:
    if is_ragged(array):
        return [element for row in array for element in row.ravel().tolist()]
    elements: list[bytes] = array.ravel().tolist()
    return elements


def _not_utf8(values: list[bytes]) -> UnicodeDecodeError | None:
    try:
        for value in values:
            value.decode()
    except UnicodeDecodeError as err:
        return err
    return None


def _plain(value: Any, tensor: TensorSpec) -> Any:
    """Return a row as Python's own values."""
    array = np.asarray(value, object if tensor.datatype.name == "BYTES" else None)
    plain = array.tolist() if _depth(tensor) else array.reshape(()).item()
    return _texts(plain) if tensor.datatype.name == "BYTES" else plain


def _texts(value: Any) -> Any:
    return [_texts(each) for each in value] if isinstance(value, list) else value.decode()
