"""Requests of the Open Inference Protocol.

JSON tensors, binary tensors behind the JSON, or both in one request.

The JSON part (`InferHead`) of a client that sends binary tensors repeats byte for byte, so it is
read apart from the bytes behind it and may be kept. Members that are not known are ignored, as
clients send some; parameters that would change what is asked for and are not served (shared memory,
sequences) are refused.

Source: Open Inference Protocol v2 and its binary tensor data, classification and parameters
extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.booleans import lenient_booleans
from batcher.codecs.formats.json_lists import from_json
from batcher.codecs.formats.nested_lists import array_from_lists
from batcher.codecs.oip.elements import from_elements
from batcher.codecs.oip.members import (
    described,
    flag_of,
    is_whole,
    list_of,
    object_of,
    parameters_of,
    priority_of,
    timeout_of,
)
from batcher.core.spec import Array, ModelSpec, TensorSpec, shape_text
from batcher.errors import DecodingError, InvalidInput

MAX_AXIS = (1 << 31) - 1
MAX_BYTES = (1 << 63) - 1
"""Largest axis, and most bytes over all axes that are not 0: what numpy can count."""

MAX_CLASSES = 1000
"""Most classes in place of an output's row."""


class BinaryInput(NamedTuple):
    """An input whose bytes stand behind the JSON, from `start` to before `stop`.

    `raw`: they are one BYTES element.
    """

    tensor: TensorSpec
    shape: tuple[int, ...]
    start: int
    stop: int
    raw: bool = False


class WantedOutput(NamedTuple):
    """An output that the client asks for.

    Attributes:
        tensor: which.
        binary: whether its bytes are to stand behind the answer's JSON.
        classes: how many of the best classes are wanted in place of it; 0 for the tensor itself.
    """

    tensor: TensorSpec
    binary: bool
    classes: int = 0


class InferHead(NamedTuple):
    """The JSON part of a request.

    Attributes:
        id: the client's name for the request, empty without.
        priority: 1 the highest; 0 is the model's default level, BULK the class below all.
        timeout: seconds until the request is worthless; None takes the model's default.
        arrays: the inputs that stood in the JSON itself.
        binaries: the others.
        outputs: what is asked for, in the order of the model's outputs.
        slow: whether writing the answer takes Python a while for each element: classes, or BYTES.
    """

    id: str
    priority: int
    timeout: float | None
    arrays: Mapping[str, Array]
    binaries: tuple[BinaryInput, ...]
    outputs: tuple[WantedOutput, ...]
    slow: bool = False

    def inputs(self, data: Buffer) -> dict[str, Array]:
        """Return all inputs, those in `data`, the bytes behind the JSON, as views of it.

        Raises:
            DecodingError: there are more or fewer bytes than the JSON says, or they are no values
                of their datatype.
        """
        expected = self.binaries[-1].stop if self.binaries else 0
        if len(data) != expected:
            raise DecodingError(
                f"body: expected {expected} bytes of tensors behind the JSON; got {len(data)}"
            )
        inputs = dict(self.arrays)
        for tensor, shape, start, stop, raw in self.binaries:
            inputs[tensor.name] = (
                _one_element(shape, data)
                if raw
                else array_from_bytes(tensor, shape, data[start:stop])
            )
        return inputs


def array_from_bytes(tensor: TensorSpec, shape: tuple[int, ...], data: Buffer) -> Array:
    """Return `data`, little-endian and row-major, as an array of `tensor`'s dtype and of `shape`; a view if it can be one.

    Raises:
        DecodingError: `data` is longer or shorter than `shape` says, or holds something else.
    """
    name = tensor.name
    if tensor.datatype.name == "BYTES":
        return from_elements(data, shape, name)
    dtype = tensor.datatype.numpy
    needed = prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise DecodingError(
            f"input {name!r}: expected {needed} bytes for "
            f"{tensor.datatype.name}{shape_text(shape)}; got {len(data)}"
        )
    array: Array = np.ndarray(shape, dtype, data) if needed else np.empty(shape, dtype)
    return lenient_booleans(array) if tensor.datatype.name == "BOOL" else array


def read_head(text: Buffer, spec: ModelSpec) -> InferHead:
    """Return what the JSON part of a request for the model `spec` says.

    Raises DecodingError, or as `read_document` does.
    """
    return read_document(object_of(from_json(text), "body"), spec)


def read_document(document: dict[str, Any], spec: ModelSpec) -> InferHead:
    """Return what a request for the model `spec` says.

    Raises:
        InvalidInput: a member is missing or has another type, name, dtype or shape than it should.
        NotServed: it asks for shared memory or a sequence.
    """
    name = document.get("id")
    if name is not None and not isinstance(name, str):
        raise InvalidInput(f"id: expected a string; got {described(name)}")
    parameters = parameters_of(document, "the request")
    arrays: dict[str, Array] = {}
    binaries: list[BinaryInput] = []
    seen: set[str] = set()
    for entry in list_of(document, "inputs"):
        tensor = _tensor(entry, spec.inputs, "input", seen)
        _read_input(entry, tensor, arrays, binaries)
    if len(seen) < len(spec.inputs):
        missing = ", ".join(repr(tensor.name) for tensor in spec.inputs if tensor.name not in seen)
        raise InvalidInput(
            f"model {spec.name!r}: expected inputs {', '.join(repr(t.name) for t in spec.inputs)}; "
            f"{missing} is missing"
        )
    outputs = _outputs(document, spec, flag_of(parameters, "binary_data_output", "the request"))
    priority, timeout = priority_of(parameters), timeout_of(parameters)
    return InferHead(
        name or "", priority, timeout, arrays, tuple(binaries), outputs, _is_slow(outputs)
    )


def raw_head(spec: ModelSpec, length: int) -> InferHead:
    """Return what a request without JSON says.

    Its whole body, of `length` bytes, is one row of the model's only input.

    A row of BYTES is one element, without its length.

    Raises:
        InvalidInput: the model has several inputs, or the row's shape does not follow from its
            length.
    """
    tensor = spec.inputs[0]
    text = tensor.datatype.name == "BYTES"
    if len(spec.inputs) > 1 or tensor.free_axes > 1 or (text and tensor.fixed_size != 1):
        raise InvalidInput(
            f"model {spec.name!r}: expected JSON before the tensors; a body of tensor bytes alone "
            "needs one input "
            "with at most one free axis"
        )
    unit = tensor.fixed_size * tensor.datatype.numpy.itemsize
    if not text and tensor.free_axes and (not unit or length % unit):
        raise InvalidInput(
            f"input {tensor.name!r}: expected {tensor.describe()}, a multiple of {unit} bytes; got "
            f"{length}"
        )
    shape = tuple((1 if text else length // unit) if size < 0 else size for size in tensor.shape)
    outputs = wanted(spec, binary=True)
    binary = BinaryInput(tensor, (1, *shape), 0, length, text)
    return InferHead("", 0, None, {}, (binary,), outputs, _is_slow(outputs))


def wanted(spec: ModelSpec, binary: bool) -> tuple[WantedOutput, ...]:
    """Return all outputs of the model, as they are wanted where none is named."""
    return tuple(WantedOutput(tensor, binary) for tensor in spec.outputs)


def _is_slow(outputs: tuple[WantedOutput, ...]) -> bool:
    return any(wanted.classes > 0 or wanted.tensor.datatype.name == "BYTES" for wanted in outputs)


def _one_element(shape: tuple[int, ...], data: Buffer) -> Array:
    array = np.empty(shape, object)
    array.flat[0] = bytes(data)
    return array


def _read_input(
    entry: dict[str, Any], tensor: TensorSpec, arrays: dict[str, Array], binaries: list[BinaryInput]
) -> None:
    where = f"input {tensor.name!r}"
    kind = entry.get("datatype")
    if kind != tensor.datatype.name:
        raise InvalidInput(
            f"{where}: expected datatype {tensor.datatype.name}; got {described(kind)}"
        )
    shape = _shape(entry, tensor, where)
    parameters = parameters_of(entry, where)
    size = parameters.get("binary_data_size")
    row_shape = shape if tensor.shape else shape[:1]
    if size is None:
        if entry.get("data") is None:
            raise InvalidInput(
                f"{where}: expected data, or the parameter binary_data_size; got neither"
            )
        arrays[tensor.name] = _json_array(entry["data"], tensor, shape).reshape(row_shape)
        return
    if entry.get("data") is not None:
        raise InvalidInput(f"{where}: expected data or binary_data_size; got both")
    if not is_whole(size):
        raise InvalidInput(
            f"{where}: binary_data_size: expected a number of bytes; got {described(size)}"
        )
    start = binaries[-1].stop if binaries else 0
    binaries.append(BinaryInput(tensor, row_shape, start, start + size))


def _json_array(data: Any, tensor: TensorSpec, shape: tuple[int, ...]) -> Array:
    array = array_from_lists(data, tensor)
    fits = array.ndim == 1 or array.shape == (
        shape if array.size else shape[: array.ndim]
    )  # lists end at an axis of 0
    if array.size != prod(shape) or not fits:
        got = (
            f"{array.size} values"
            if array.ndim == 1
            else f"values of shape {shape_text(array.shape)}"
        )
        raise InvalidInput(
            f"input {tensor.name!r}: expected {prod(shape)} values for shape {shape_text(shape)}; "
            f"got {got}"
        )
    return array.reshape(shape)


def _shape(entry: dict[str, Any], tensor: TensorSpec, where: str) -> tuple[int, ...]:
    found = entry.get("shape")
    if not isinstance(found, list) or not all(map(is_whole, found)):
        raise InvalidInput(
            f"{where}: expected a shape of whole numbers such as {shape_text(tensor.batch_shape)}; "
            f"got {described(found)}"
        )
    expected = tensor.batch_shape
    if not tensor.shape and len(found) == 2:
        expected = (-1, 1)  # a row without axes, as clients of C++ write it
    fits = len(found) == len(expected) and all(
        want in (-1, have) for want, have in zip(expected, found, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"{where}: expected shape {shape_text(tensor.batch_shape)}; got {described(found)}"
        )
    if (
        max(found, default=0) > MAX_AXIS
        or prod(max(size, 1) for size in found) * tensor.datatype.numpy.itemsize > MAX_BYTES
    ):
        raise InvalidInput(
            f"{where}: expected a shape of a tensor that fits into memory; got {described(found)}"
        )
    return tuple(found)


def _outputs(
    document: dict[str, Any], spec: ModelSpec, binary: bool | None
) -> tuple[WantedOutput, ...]:
    entries = document.get("outputs")
    if entries is None or entries == []:
        return wanted(spec, bool(binary))
    found: dict[str, WantedOutput] = {}
    seen: set[str] = set()
    for entry in list_of(document, "outputs"):
        tensor = _tensor(entry, spec.outputs, "output", seen)
        where = f"output {tensor.name!r}"
        parameters = parameters_of(entry, where)
        own = flag_of(parameters, "binary_data", where)
        classes = parameters.get("classification", 0)
        if (
            not is_whole(classes)
            or classes > MAX_CLASSES
            or (classes and tensor.datatype.name in ("BYTES", "BOOL"))
        ):
            expected = f"how many classes, at most {MAX_CLASSES}, of an output of numbers"
            raise InvalidInput(
                f"{where}: classification: expected {expected}; got {described(classes)}"
            )
        found[tensor.name] = WantedOutput(tensor, bool(binary if own is None else own), classes)
    return tuple(found[tensor.name] for tensor in spec.outputs if tensor.name in found)


def _tensor(entry: Any, tensors: tuple[TensorSpec, ...], kind: str, seen: set[str]) -> TensorSpec:
    """Return the tensor that an entry of `inputs` or `outputs` names, each once."""
    name = object_of(entry, f"{kind}s").get("name")
    for tensor in tensors:
        if tensor.name == name:
            if name in seen:
                raise InvalidInput(f"{kind} {name!r}: expected once; got it twice")
            seen.add(name)
            return tensor
    raise InvalidInput(
        f"{kind}: expected one of {', '.join(repr(tensor.name) for tensor in tensors)}; got "
        f"{described(name)}"
    )
