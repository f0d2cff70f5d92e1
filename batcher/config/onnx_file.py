"""What an ONNX file says of its tensors, read without onnxruntime.

The settings need names, dtypes and shapes before any library is loaded, and a load needs to know
which weights lie in files of their own. An ONNX file is one message of protocol buffers
(`wire_messages.py`). The numbers of the fields are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import SEEK_END
from pathlib import Path
from typing import NamedTuple

from batcher.config.onnx_branches import deciding_inputs
from batcher.config.onnx_training import training_operators
from batcher.config.wire_messages import MAX_DEPTH, Message, MessageReader

Dim = int | str | None
"""Size of an axis: a number, the name of a size that differs from batch to batch, or unknown."""

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
        training: kinds of operators that run as in training.
        deciding: inputs by whose values a branch is taken.
    """

    inputs: list[GraphTensor] = field(default_factory=list)
    defaults: list[GraphTensor] = field(default_factory=list)
    outputs: list[GraphTensor] = field(default_factory=list)
    external: list[ExternalTensor] = field(default_factory=list)
    training: list[str] = field(default_factory=list)
    deciding: list[str] = field(default_factory=list)


def read_onnx(path: Path, nodes: bool = False) -> OnnxFile:
    """Return what the file at `path` says of its tensors.

    External weights, operators in training and branches are read with `nodes` alone, since that
    takes longer.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no ONNX.
    """
    with path.open("rb") as file:
        size = file.seek(0, SEEK_END)
        return _Reader(file).model(Message(0, size), nodes)


def _map_tensor(name: str, labels: tuple[int | str, ...]) -> GraphTensor:
    """Return the tensor of scores that a sequence of maps stands for."""
    return GraphTensor(name, "FP32", (None, len(labels)), labels)


class _Reader(MessageReader):
    """Reads what one file says of its tensors."""

    def model(self, message: Message, nodes: bool) -> OnnxFile:
        found = OnnxFile()
        graphs = list(self.messages(message, 7))
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
        if nodes:
            found.training = training_operators(self, message)
            found.deciding = deciding_inputs(self, graphs[0])
            found.external = list(self._external(graphs[0], 0))
            for function in self.messages(message, 25):
                found.external += self._external_of_nodes(self.messages(function, 7), 0)
        return found

    def _signature(self, graph: Message, found: OnnxFile) -> set[str]:
        """Put inputs and outputs of `graph` into `found`; return the names of initializers."""
        initialized: set[str] = set()
        for number, value in self.fields(graph):
            if isinstance(value, Message):
                if number == 11:
                    found.inputs.append(self._tensor(value))
                elif number == 12:
                    found.outputs.append(self._tensor(value))
                elif number == 5:
                    initialized.add(self.text_of(value, 8))
                elif number == 15:
                    for values in self.messages(value, 1):
                        initialized.add(self.text_of(values, 8))
        return initialized

    def _tensor(self, message: Message) -> GraphTensor:
        name = self.text_of(message, 1)
        for kind in self.messages(message, 2):
            for tensor in self.messages(kind, 1):
                dtype = _DTYPES.get(self.number_of(tensor, 1), "")
                shapes = [self._shape(shape) for shape in self.messages(tensor, 2)]
                return GraphTensor(name, dtype, shapes[0] if shapes else None)
        return GraphTensor(name, "", None)

    def _shape(self, message: Message) -> tuple[Dim, ...]:
        return tuple(self._dim(dim) for dim in self.messages(message, 1))

    def _dim(self, message: Message) -> Dim:
        for number, value in self.fields(message):
            if number == 1 and isinstance(value, int):
                return value if value >= 0 else None
            if number == 2 and isinstance(value, Message):
                return self.text(value) or None
        return None

    def _zip_maps(self, graph: Message) -> Iterator[tuple[str, tuple[int | str, ...]]]:
        """Yield the output of each ZipMap, and its keys."""
        for node in self.messages(graph, 1):
            if self.text_of(node, 4) == "ZipMap":
                labels: list[int | str] = []
                for attribute in self.messages(node, 5):
                    labels += self.integers(attribute, 8)
                    labels += map(self.text, self.messages(attribute, 9))
                yield self.text_of(node, 2), tuple(labels)

    def _external(self, graph: Message, depth: int) -> Iterator[ExternalTensor]:
        """Yield the weights of `graph`, and of graphs within it, that lie in other files."""
        if depth > MAX_DEPTH:
            raise ValueError("expected fewer graphs within graphs")
        for initializer in self.messages(graph, 5):
            yield from self._external_tensor(initializer, depth == 0)
        for sparse in self.messages(graph, 15):
            yield from self._external_of_sparse(sparse)
        yield from self._external_of_nodes(self.messages(graph, 1), depth)

    def _external_of_nodes(self, nodes: Iterator[Message], depth: int) -> Iterator[ExternalTensor]:
        for node in nodes:
            for attribute in self.messages(node, 5):
                for number, value in self.fields(attribute):
                    if not isinstance(value, Message):
                        continue
                    if number in (5, 10):
                        yield from self._external_tensor(value, False)
                    elif number in (6, 11):
                        yield from self._external(value, depth + 1)
                    elif number in (22, 23):
                        yield from self._external_of_sparse(value)

    def _external_of_sparse(self, message: Message) -> Iterator[ExternalTensor]:
        for number in (1, 2):
            for tensor in self.messages(message, number):
                yield from self._external_tensor(tensor, False)

    def _external_tensor(self, message: Message, named: bool) -> Iterator[ExternalTensor]:
        if self.number_of(message, 14) != 1:
            return
        entries = {
            self.text_of(entry, 1): self.text_of(entry, 2) for entry in self.messages(message, 13)
        }
        yield ExternalTensor(
            self.text_of(message, 8) if named else "",
            _DTYPES.get(self.number_of(message, 2), ""),
            tuple(self.integers(message, 1)),
            entries.get("location", ""),
            int(entries.get("offset", "0")),
        )
