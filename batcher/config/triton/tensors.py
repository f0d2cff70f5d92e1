"""`input`, `output` and `model_warmup` of `config.pbtxt`: the tensors of the model."""

from __future__ import annotations

from typing import Any

from batcher.config.tensor_file import same_elements
from batcher.config.triton.fields import (
    Handler,
    Reading,
    accepted,
    ignored,
    refused_if_true,
    shown,
)
from batcher.config.triton.text_format import Field, Message
from batcher.core.error_text import brief
from batcher.core.spec import DATATYPES

TYPES = {f"TYPE_{'STRING' if name == 'BYTES' else name}": name for name in DATATYPES}
"""Triton's names of the datatypes."""

MAX_LABELS_BYTES = 16 << 20
"""Bytes of a file of labels: those of a million classes."""


class _Tensor:
    """One tensor while it is read."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"shape": []}
        self.dims: list[int] = []
        self.reshape: tuple[Field, list[int]] | None = None

    def name(self, reading: Reading, field: Field) -> None:
        self.values["name"] = reading.text(field)

    def data_type(self, reading: Reading, field: Field) -> None:
        dtype = TYPES.get(str(field.value))
        if dtype is None:
            reading.refuse(field, f"expected one of {', '.join(TYPES)}; got {shown(field)}")
            return
        self.values["dtype"] = dtype

    def take_dims(self, reading: Reading, field: Field) -> None:
        size = reading.number(field, -1)
        if size is not None:
            self.dims.append(size)

    def take_reshape(self, reading: Reading, field: Field) -> None:
        shape: list[int] = []

        def take(reading: Reading, inner: Field) -> None:
            size = reading.number(inner, -1)
            shape.append(-1 if size is None else size)

        reading.each(field, {"shape": take})
        self.reshape = (field, shape)

    def optional(self, reading: Reading, field: Field) -> None:
        if reading.boolean(field):
            self.values["optional"] = True

    def labels(self, reading: Reading, field: Field) -> None:
        """Read the names of the classes, one a line, from a file beside `config.pbtxt`."""
        name = reading.text(field)
        if not name:
            return
        try:
            path = (reading.folder / name).resolve()
            if not path.is_relative_to(reading.folder.resolve()) or not path.is_file():
                reading.refuse(field, f"expected a file beside {reading.file}; got {brief(name)}")
            elif path.stat().st_size > MAX_LABELS_BYTES:
                most = f"at most {MAX_LABELS_BYTES} bytes"
                reading.refuse(field, f"expected a file of {most}; got a larger one, {brief(name)}")
            else:
                self.values["labels"] = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as err:  # ValueError: no text, or no name that a file can have
            reading.refuse(field, f"expected a file of text; got {brief(name)}: {err}")

    def handlers(self, is_input: bool) -> dict[str, Handler]:
        """Return the handler of each field."""
        both: dict[str, Handler] = {
            "name": self.name,
            "data_type": self.data_type,
            "dims": self.take_dims,
            "reshape": self.take_reshape,
            "is_shape_tensor": refused_if_true(
                "a tensor of shapes is TensorRT's alone: take the shape from another input"
            ),
            "is_non_linear_format_io": refused_if_true("formats of TensorRT are not served"),
        }
        if not is_input:
            return both | {"label_filename": self.labels}
        ragged = "rows of unequal lengths are padded here: see docs/ragged.md"
        return both | {
            "format": ignored("the shape says where the channels of a picture stand"),
            "optional": self.optional,
            "allow_ragged_batch": refused_if_true(ragged),
        }


def tensor(reading: Reading, field: Field) -> None:
    """Take an input or an output."""
    found = _Tensor()
    before = len(reading.faults)
    reading.each(field, found.handlers(field.name == "input"))
    if missing := [key for key in ("name", "dtype") if key not in found.values]:
        if len(reading.faults) == before:
            name = {"dtype": "data_type"}.get(missing[0], missing[0])
            reading.refuse(field, f"expected a tensor with {name}; got none")
        return
    if found.reshape is not None and found.reshape[1] != found.dims:
        found.values["reshape"] = found.reshape[1]
        if not same_elements(found.dims, found.reshape[1]):
            reading.refuse(
                found.reshape[0],
                f"expected a shape with as many elements as dims, {found.dims}, and at most one -1 "
                f"in both; got {found.reshape[1]}",
            )
    kind = f"{field.name}s"
    entries = reading.values.setdefault(kind, [])
    reading.origins[(kind, len(entries))] = reading.place(field.line)
    entries.append(found.values | {"shape": found.dims})


def warmup(reading: Reading, field: Field) -> None:
    """Take the sizes of free axes from a sample of warm-up; warm-up itself is always run."""
    shapes: dict[str, list[int]] = {}

    def take(reading: Reading, inner: Field) -> None:
        name, shape = _entry(reading, inner)
        shapes[name] = shape

    reading.each(
        field, {"name": accepted, "batch_size": accepted, "count": accepted, "inputs": take}
    )
    for name, shape in shapes.items():
        if -1 not in shape:
            reading.settings.setdefault("_warmup", {}).setdefault(name, shape)


def _entry(reading: Reading, field: Field) -> tuple[str, list[int]]:
    """Return name and shape of an input of a sample."""
    name, shape = [""], list[int]()

    def key(reading: Reading, inner: Field) -> None:
        name[0] = reading.text(inner)

    def dims(reading: Reading, inner: Field) -> None:
        size = reading.number(inner, -1)
        shape.append(-1 if size is None else size)

    data = ignored("warm-up runs zeros, or the rows of `sample` in model.yaml")
    value: dict[str, Handler] = {
        "data_type": accepted,
        "dims": dims,
        "zero_data": accepted,
        "random_data": accepted,
        "input_data_file": data,
    }
    reading.each(field, {"key": key, "value": lambda inner, each: inner.each(each, value)})
    return name[0], shape


def without_batch(reading: Reading, top: Message) -> None:
    """Take the axis of the batch out of the shapes, where `max_batch_size` is 0.

    Triton then calls the model with what a client sends, and `dims` have all axes. Here the first
    axis always counts rows: it must be free, or 1.
    """
    firsts = _firsts(reading, top)
    for line, first in firsts:
        if first not in ([-1], [1]):
            got = f"dims that begin with {first[0]}" if first else "no dims"
            why = f"got {got}: no axis counts rows, so nothing can be batched"
            expected = "expected, with max_batch_size 0, dims that begin with -1 or 1, the rows"
            reading.fault(line, f"dims: {expected}; {why}")
    if firsts and all(first == [1] for _, first in firsts):
        reading.set("max_batch_size", 1, firsts[0][0])
    for kind in ("inputs", "outputs"):
        for place, entry in enumerate(reading.values.get(kind, ())):
            _take_rows_out(reading, entry, reading.origins[kind, place])


def _take_rows_out(reading: Reading, entry: dict[str, Any], place: str) -> None:
    """Take the axis of the batch out of the shapes of one tensor."""
    dims, reshape = entry["shape"], entry.pop("reshape", None)
    if reshape is None or dims[:1] == reshape[:1]:
        dims = dims[1:]
    else:
        reading.notes.append(
            f"{place}: {entry['name']}: expected {[1, *dims]} of clients: the axis of the rows, "
            "which reshape adds, stands before dims"
        )
    entry["shape"] = dims
    if reshape is not None and reshape[1:] != dims:
        entry["reshape"] = reshape[1:]


def _firsts(reading: Reading, top: Message) -> list[tuple[int, list[int]]]:
    """Return the line of each tensor, and its first size, in a list of none or one."""
    return [
        (field.line, entry.get("reshape", entry["shape"])[:1])
        for kind in ("inputs", "outputs")
        for field, entry in zip(
            [each for each in top.fields if f"{each.name}s" == kind],
            reading.values.get(kind, ()),
            strict=False,
        )
    ]


def with_warmup(reading: Reading) -> None:
    """Give each input with a free axis the shape that `model_warmup` has for it."""
    shapes = reading.settings.pop("_warmup", {})
    for entry in reading.values.get("inputs", ()):
        shape = shapes.get(entry["name"])
        if shape and -1 in entry["shape"] and len(shape) == len(entry["shape"]):
            entry["warmup_shape"] = shape
