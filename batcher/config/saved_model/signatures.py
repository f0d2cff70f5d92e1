"""The signatures of a SavedModel: names, datatypes and shapes of what TensorFlow is called with.

`saved_model.pb` is a message of protocol buffers (`wire_messages.py`), so the settings are known
without TensorFlow, whose import takes seconds. The numbers of the fields are those of
`saved_model.proto`, `meta_graph.proto`, `tensor_shape.proto` and `types.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import SEEK_END
from pathlib import Path
from typing import NamedTuple

from batcher.config.wire_messages import Field, Message, MessageReader

FILE = "saved_model.pb"
"""The name of the file."""

_SERVING_TAG = "serve"
"""The tag of the graph for inference, where the file holds several."""

_OF_LOADING = "__saved_model_init_op"
"""The signature that TensorFlow runs once while it loads the file."""

MAX_TENSORS = 4096
"""Inputs, or outputs, of all signatures together: real files have a few."""

MAX_FIELDS = 100_000
"""Fields that are read: the graph itself, which has most of a file's, is passed over as one."""

_DTYPES = {
    1: "FP32",
    2: "FP64",
    3: "INT32",
    4: "UINT8",
    5: "INT16",
    6: "INT8",
    7: "BYTES",
    9: "INT64",
    10: "BOOL",
    14: "BF16",
    17: "UINT16",
    19: "FP16",
    22: "UINT32",
    23: "UINT64",
}
"""The datatype of each number that TensorFlow gives to a type of elements."""


class SignatureTensor(NamedTuple):
    """An input or output of a signature.

    Attributes:
        name: the name by which it is passed.
        dtype: name of its datatype; empty for what is no tensor (sparse, ragged), or of no known
            datatype.
        shape: sizes of all its axes, the batch included, -1 where free; None if the file does not
            say.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(slots=True)
class Signature:
    """What can be called, by the names of its tensors, sorted."""

    inputs: list[SignatureTensor] = field(default_factory=list)
    outputs: list[SignatureTensor] = field(default_factory=list)


class SavedModelFile(NamedTuple):
    """What was read.

    Attributes:
        tags: those of the graph that is served.
        signatures: the signatures of that graph, by name.
    """

    tags: tuple[str, ...]
    signatures: dict[str, Signature]


def read_saved_model(path: Path) -> SavedModelFile:
    """Return what the `saved_model.pb` at `path` says of its signatures.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no SavedModel, or holds several graphs and none of them to serve.
    """
    with path.open("rb") as file:
        size = file.seek(0, SEEK_END)
        return _Reader(file).saved_model(Message(0, size))


class _Reader(MessageReader):
    """Reads the signatures of one file."""

    _count = 0
    _fields = 0

    def fields(self, message: Message) -> Iterator[Field]:
        """Yield number and value of each field. Raises ValueError: there are too many."""
        for each in super().fields(message):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ValueError(f"expected at most {MAX_FIELDS} fields beside the graph; got more")
            yield each

    def saved_model(self, message: Message) -> SavedModelFile:
        graphs = list(self.messages(message, 2))
        tagged = [(self._tags(graph), graph) for graph in graphs]
        serving = [each for each in tagged if _SERVING_TAG in each[0]] or tagged
        if len(serving) != 1:
            found = "; ".join(", ".join(tags) for tags, _ in tagged) or "none"
            raise ValueError(f"expected one graph with the tag {_SERVING_TAG}; got {found:.200}")
        tags, graph = serving[0]
        signatures = {
            name: self._signature(value)
            for name, value in map(self._entry, self.messages(graph, 5))
            if name != _OF_LOADING and value is not None
        }
        return SavedModelFile(tags, signatures)

    def _tags(self, graph: Message) -> tuple[str, ...]:
        infos = list(self.messages(graph, 1))
        return tuple(self.text(tag) for info in infos for tag in self.messages(info, 4))

    def _entry(self, entry: Message) -> tuple[str, Message | None]:
        """Return key and value of an entry of a map."""
        return self.text_of(entry, 1), next(self.messages(entry, 2), None)

    def _signature(self, message: Message) -> Signature:
        return Signature(self._tensors(message, 1), self._tensors(message, 2))

    def _tensors(self, message: Message, kind: int) -> list[SignatureTensor]:
        found = []
        for entry in self.messages(message, kind):
            self._count += 1
            if self._count > MAX_TENSORS:
                raise ValueError(f"expected at most {MAX_TENSORS} inputs and outputs; got more")
            name, value = self._entry(entry)
            found.append(self._tensor(name, value or Message(0, 0)))
        return sorted(found, key=lambda tensor: tensor.name)

    def _tensor(self, name: str, info: Message) -> SignatureTensor:
        is_plain = not any(number in (4, 5) for number, _ in self.fields(info))
        dtype = _DTYPES.get(self.number_of(info, 2), "") if is_plain else ""
        shape = next(self.messages(info, 3), None)
        if shape is None or self.number_of(shape, 3):
            return SignatureTensor(name, dtype, None)
        sizes = tuple(self.number_of(axis, 1) for axis in self.messages(shape, 2))
        return SignatureTensor(name, dtype, sizes)
