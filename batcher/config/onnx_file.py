"""What an ONNX file says of its tensors, read without onnxruntime.

The settings need names, dtypes and shapes before any library is loaded, and a load needs to know
which weights lie in files of their own. An ONNX file is one message of protocol buffers. A message
is a row of fields, each with its number and, for what is itself a message, its length in bytes. So
a reader needs neither the schema nor the weights: whatever is not asked for is skipped by its
length. The numbers of the fields are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import SEEK_END
from pathlib import Path
from typing import BinaryIO, NamedTuple

Dim = int | str | None
"""Size of an axis: a number, the name of a size that differs from batch to batch, or unknown."""

TEXT_BYTES = 1 << 16
"""Longest name that is read; a longer one belongs to no tensor that a person has named."""

MAX_DEPTH = 32
"""Most graphs within graphs, such as the branches of an `If`."""

_DTYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
"""The datatype of each number that ONNX gives to a type of elements."""


class GraphTensor(NamedTuple):
    """An input or output of the graph.

    Attributes:
        name: its name in the graph.
        dtype: name of its datatype; empty for what is no tensor, or of no known datatype.
        shape: sizes of all its axes, the batch included; None if the file does not say.
        labels: for the sequence of maps that a ZipMap makes: the keys of each map, in the order of
            the scores. Empty for a tensor.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    labels: tuple[int | str, ...] = ()


class ExternalTensor(NamedTuple):
    """Weights in a file beside the graph.

    Attributes:
        name: name of the tensor; empty for one that is no initializer of the outermost graph.
        dtype: name of its datatype; empty for one that is not in the table.
        shape: its shape.
        location: path of the file, relative to the folder of the graph.
        offset: bytes of the file before the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int


@dataclass(slots=True)
class OnnxFile:
    """What was read.

    Attributes:
        inputs: inputs that have no value of their own in the graph.
        defaults: inputs that have a value in the graph, which a batch may replace.
        outputs: the outputs.
        external: weights in other files.
    """

    inputs: list[GraphTensor] = field(default_factory=list)
    defaults: list[GraphTensor] = field(default_factory=list)
    outputs: list[GraphTensor] = field(default_factory=list)
    external: list[ExternalTensor] = field(default_factory=list)


class _Message(NamedTuple):
    """A field that is a message, a text or bytes: where it lies in the file."""

    start: int
    stop: int


Field = tuple[int, int | _Message]


def read_onnx(path: Path, weights: bool = False) -> OnnxFile:
    """Return what the file at `path` says of its tensors; with `weights` also of external ones.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no ONNX.
    """
    with path.open("rb") as file:
        size = file.seek(0, SEEK_END)
        return _Reader(file).model(_Message(0, size), weights)


def _map_tensor(name: str, labels: tuple[int | str, ...]) -> GraphTensor:
    """Return the tensor of scores that a sequence of maps stands for."""
    return GraphTensor(name, "FP32", (None, len(labels)), labels)


class _Reader:
    """Reads messages of one file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def model(self, message: _Message, weights: bool) -> OnnxFile:
        found = OnnxFile()
        graphs = list(self._messages(message, 7))
        if len(graphs) != 1:
            raise ValueError("expected one graph")
        initialized = self._signature(graphs[0], found)
        found.defaults = [tensor for tensor in found.inputs if tensor.name in initialized]
        found.inputs = [tensor for tensor in found.inputs if tensor.name not in initialized]
        if any(not tensor.dtype for tensor in found.outputs):
            maps = dict(self._zip_maps(graphs[0]))
            found.outputs = [
                _map_tensor(tensor.name, maps[tensor.name])
                if tensor.name in maps and not tensor.dtype
                else tensor
                for tensor in found.outputs
            ]
        if weights:
            found.external = list(self._external(graphs[0], 0))
            for function in self._messages(message, 25):
                found.external += self._external_of_nodes(self._messages(function, 7), 0)
        return found

    def _signature(self, graph: _Message, found: OnnxFile) -> set[str]:
        """Put inputs and outputs of `graph` into `found`; return the names of initializers."""
        initialized: set[str] = set()
        for number, value in self._fields(graph):
            if isinstance(value, _Message):
                if number == 11:
                    found.inputs.append(self._tensor(value))
                elif number == 12:
                    found.outputs.append(self._tensor(value))
                elif number == 5:
                    initialized.add(self._text_of(value, 8))
                elif number == 15:
                    for values in self._messages(value, 1):
                        initialized.add(self._text_of(values, 8))
        return initialized

    def _tensor(self, message: _Message) -> GraphTensor:
        name = self._text_of(message, 1)
        for kind in self._messages(message, 2):
            for tensor in self._messages(kind, 1):
                dtype = _DTYPES.get(self._number_of(tensor, 1), "")
                shapes = [self._shape(shape) for shape in self._messages(tensor, 2)]
                return GraphTensor(name, dtype, shapes[0] if shapes else None)
        return GraphTensor(name, "", None)

    def _shape(self, message: _Message) -> tuple[Dim, ...]:
        return tuple(self._dim(dim) for dim in self._messages(message, 1))

    def _dim(self, message: _Message) -> Dim:
        for number, value in self._fields(message):
            if number == 1 and isinstance(value, int):
                return value if value >= 0 else None
            if number == 2 and isinstance(value, _Message):
                return self._text(value) or None
        return None

    def _zip_maps(self, graph: _Message) -> Iterator[tuple[str, tuple[int | str, ...]]]:
        """Yield the output of each ZipMap, and its keys."""
        for node in self._messages(graph, 1):
            if self._text_of(node, 4) == "ZipMap":
                labels: list[int | str] = []
                for attribute in self._messages(node, 5):
                    labels += self._integers(attribute, 8)
                    labels += map(self._text, self._messages(attribute, 9))
                yield self._text_of(node, 2), tuple(labels)

    def _external(self, graph: _Message, depth: int) -> Iterator[ExternalTensor]:
        """Yield the weights of `graph`, and of graphs within it, that lie in other files."""
        if depth > MAX_DEPTH:
            raise ValueError("expected fewer graphs within graphs")
        for initializer in self._messages(graph, 5):
            yield from self._external_tensor(initializer, depth == 0)
        for sparse in self._messages(graph, 15):
            yield from self._external_of_sparse(sparse)
        yield from self._external_of_nodes(self._messages(graph, 1), depth)

    def _external_of_nodes(self, nodes: Iterator[_Message], depth: int) -> Iterator[ExternalTensor]:
        for node in nodes:
            for attribute in self._messages(node, 5):
                for number, value in self._fields(attribute):
                    if not isinstance(value, _Message):
                        continue
                    if number in (5, 10):
                        yield from self._external_tensor(value, False)
                    elif number in (6, 11):
                        yield from self._external(value, depth + 1)
                    elif number in (22, 23):
                        yield from self._external_of_sparse(value)

    def _external_of_sparse(self, message: _Message) -> Iterator[ExternalTensor]:
        for number in (1, 2):
            for tensor in self._messages(message, number):
                yield from self._external_tensor(tensor, False)

    def _external_tensor(self, message: _Message, named: bool) -> Iterator[ExternalTensor]:
        if self._number_of(message, 14) != 1:
            return
        entries = {
            self._text_of(entry, 1): self._text_of(entry, 2)
            for entry in self._messages(message, 13)
        }
        yield ExternalTensor(
            self._text_of(message, 8) if named else "",
            _DTYPES.get(self._number_of(message, 2), ""),
            tuple(self._integers(message, 1)),
            entries.get("location", ""),
            int(entries.get("offset", "0")),
        )

    def _messages(self, message: _Message, wanted: int) -> Iterator[_Message]:
        """Yield the fields of number `wanted` that are messages."""
        for number, value in self._fields(message):
            if number == wanted and isinstance(value, _Message):
                yield value

    def _number_of(self, message: _Message, wanted: int) -> int:
        """Return the last number in the field `wanted`, 0 without one."""
        found = 0
        for number, value in self._fields(message):
            if number == wanted and isinstance(value, int):
                found = value
        return found

    def _integers(self, message: _Message, wanted: int) -> Iterator[int]:
        """Yield the numbers of a field that is repeated, one by one or packed."""
        for number, value in self._fields(message):
            if number == wanted:
                if isinstance(value, int):
                    yield value
                else:
                    self._file.seek(value.start)
                    while self._file.tell() < value.stop:
                        found = self._varint()
                        place = self._file.tell()
                        yield found
                        self._file.seek(place)

    def _text_of(self, message: _Message, wanted: int) -> str:
        """Return the first text in the field `wanted`, empty without one."""
        return next(map(self._text, self._messages(message, wanted)), "")

    def _text(self, message: _Message) -> str:
        if message.stop - message.start > TEXT_BYTES:
            raise ValueError("expected a shorter name")
        self._file.seek(message.start)
        return self._file.read(message.stop - message.start).decode()

    def _fields(self, message: _Message) -> Iterator[Field]:
        """Yield number and value of each field; what is neither number nor message is skipped."""
        place = message.start
        while place < message.stop:
            self._file.seek(place)
            key = self._varint()
            number, wire = key >> 3, key & 7
            if wire == 0:
                value = self._varint()
                place = self._file.tell()
                yield number, value
            elif wire == 2:
                length = self._varint()
                start = self._file.tell()
                place = start + length
                if length < 0 or place > message.stop:
                    raise ValueError("expected a field within its message")
                yield number, _Message(start, place)
            elif wire in (1, 5):
                place = self._file.tell() + (8 if wire == 1 else 4)
            else:
                raise ValueError(f"expected a field of a known kind; got {wire}")

    def _varint(self) -> int:
        """Return the next number, of at most 64 bits, signed."""
        found = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte:
                raise ValueError("expected more bytes")
            found |= (byte[0] & 127) << shift
            if byte[0] < 128:
                found &= (1 << 64) - 1
                return found - (1 << 64) if found >> 63 else found
        raise ValueError("expected a number of at most 64 bits")
