"""Requests of the Open Inference Protocol: JSON, with binary tensors behind the JSON or without.

A client that sends binary tensors repeats the JSON part byte for byte, from request to request. So
the JSON part is read apart from the bytes behind it, into an `InferHead`, and callers may keep the
head. One request may have inputs of both kinds.

Unknown members are ignored, since clients send some. Parameters that would change the answer and
are not served (shared memory, sequences) are refused.

Source: Open Inference Protocol v2 and its binary tensor data, classification and parameters
extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer, Files
from batcher.codecs.formats.booleans import lenient_booleans
from batcher.codecs.formats.json_text import with_json
from batcher.codecs.formats.long_lists import LongList, array_from_value
from batcher.codecs.formats.references import REF
from batcher.codecs.oip.elements import check_elements, from_elements
from batcher.codecs.oip.members import (
    flag_of,
    is_whole,
    list_of,
    object_of,
    parameters_of,
    priority_of,
    timeout_of,
    value_text,
)
from batcher.codecs.oip.references import ReferencedInput, referenced_input
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.shapes import checked_shape, too_many_axes
from batcher.core.spec import Array, ModelSpec, TensorSpec, input_names, shape_text
from batcher.errors import DecodingError, InvalidInput

MAX_CLASSES = 1000
"""Most classes that stand in place of a row of an output."""


class BinaryInput(NamedTuple):
    """An input whose bytes stand behind the JSON.

    Attributes:
        tensor: spec of the input.
        shape: sizes of the axes, rows first.
        start: bytes behind the JSON before this input.
        stop: bytes behind the JSON up to the end of this input.
        one_element: whether the bytes are a single BYTES element, without its length.
    """

    tensor: TensorSpec
    shape: tuple[int, ...]
    start: int
    stop: int
    one_element: bool = False


class RequestedOutput(NamedTuple):
    """An output that the client asks for.

    Attributes:
        tensor: spec of the output.
        binary: whether its bytes are to stand behind the answer's JSON.
        classes: number of best classes in place of each row; 0 for the tensor itself.
    """

    tensor: TensorSpec
    binary: bool
    classes: int = 0


class InferHead(NamedTuple):
    """The JSON part of a request.

    Attributes:
        id: the client's name for the request, empty without.
        priority: 1 the highest; 0 is the model's default level, BULK_PRIORITY the class below all.
        timeout: seconds until the request is worthless; None takes the model's default.
        arrays: name to array of the inputs in the JSON itself.
        binaries: inputs whose bytes stand behind the JSON, in the order of their bytes.
        outputs: outputs that are asked for, in the order of the model's outputs.
        slow: whether writing the answer takes a Python step for each element: classes, or BYTES.
        heavy: whether a large answer takes much longer to write than its bytes take to copy: some
            outputs are asked for in JSON, or as classes.
        references: inputs that are files, which have to be fetched.
    """

    id: str
    priority: int
    timeout: float | None
    arrays: Mapping[str, Array]
    binaries: tuple[BinaryInput, ...]
    outputs: tuple[RequestedOutput, ...]
    slow: bool = False
    heavy: bool = False
    references: tuple[ReferencedInput, ...] = ()

    def inputs(self, data: Buffer, files: Files | None = None) -> dict[str, Array]:
        """Return all inputs; binary inputs are views of `data`, the bytes behind the JSON.

        `files` are those that the request names; None if they were not fetched.

        Raises:
            InvalidInput: a file is not what its input is made of, or was not fetched.
            DecodingError: there are more or fewer bytes than the JSON says, or the bytes are not
                values of their datatype.
        """
        expected = self.binaries[-1].stop if self.binaries else 0
        if len(data) != expected:
            raise DecodingError(
                f"body: expected {expected} bytes of tensors behind the JSON; got {len(data)}"
            )
        inputs = dict(self.arrays)
        for tensor, shape, start, stop, one_element in self.binaries:
            inputs[tensor.name] = (
                _one_element(shape, data)
                if one_element
                else array_from_bytes(tensor, shape, data[start:stop])
            )
        for each in self.references:
            inputs[each.tensor.name] = each.array(files)
        return inputs


def array_from_bytes(tensor: TensorSpec, shape: tuple[int, ...], data: Buffer) -> Array:
    """Return `data`, little-endian and row-major, as an array of `tensor`'s dtype and of `shape`.

    The array is a view of `data`, except for BYTES and for booleans in other bytes than 0 and 1.

    Raises:
        DecodingError: `data` is longer or shorter than `shape` says, or BYTES elements do not fill
            `data`.
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


def read_head(text: Buffer, spec: ModelSpec, limits: DecodingLimits = NO_LIMITS) -> InferHead:
    """Return the head of a request for the model `spec` from its JSON part.

    Raises:
        DecodingError: `text` is not JSON.
        InvalidInput: as `read_document`.
        NotServed: as `read_document`.
        TooLarge: as `read_document`.
    """
    return with_json(
        text, lambda document: read_document(object_of(document, "body"), spec, limits)
    )


def read_document(
    document: dict[str, Any], spec: ModelSpec, limits: DecodingLimits = NO_LIMITS
) -> InferHead:
    """Return the head of a request for the model `spec` from its JSON object.

    Raises:
        InvalidInput: a member is missing or has another type, name, dtype or shape than it should.
        NotServed: the request asks for shared memory or a sequence.
        TooLarge: an input in the JSON has more rows or bytes than `limits` allow.
    """
    name = document.get("id")
    if name is not None and not isinstance(name, str):
        raise InvalidInput(f"id: expected a string; got {value_text(name)}")
    parameters = parameters_of(document, "the request")
    arrays, binaries, references = _inputs(document, spec, limits)
    outputs = _outputs(document, spec, flag_of(parameters, "binary_data_output", "the request"))
    priority, timeout = priority_of(parameters), timeout_of(parameters)
    found = (arrays, binaries, outputs, _is_slow(outputs), is_heavy(outputs), references)
    return InferHead(name or "", priority, timeout, *found)


def raw_head(spec: ModelSpec, length: int) -> InferHead:
    """Return the head of a request without JSON, whose body has `length` bytes.

    The body is one row of the model's only input. A row of BYTES is one element without its length.

    Raises:
        InvalidInput: the model has several inputs, or the length does not give the row's shape.
    """
    tensor, others = spec.required[0], spec.required[1:]
    is_bytes = tensor.datatype.name == "BYTES"
    if others or tensor.free_axes > 1 or (is_bytes and tensor.fixed_size != 1):
        raise InvalidInput(
            f"model {spec.name!r}: expected JSON before the tensors; a body of tensor bytes alone "
            "needs one input with at most one free axis"
        )
    unit = tensor.fixed_size * tensor.datatype.numpy.itemsize
    if not is_bytes and tensor.free_axes and (not unit or length % unit):
        raise InvalidInput(
            f"input {tensor.name!r}: expected {tensor.describe()}, a multiple of {unit} bytes; got "
            f"{length}"
        )
    shape = tuple((1 if is_bytes else length // unit) if n < 0 else n for n in tensor.shape)
    outputs = all_outputs(spec, binary=True)
    binary = BinaryInput(tensor, (1, *shape), 0, length, is_bytes)
    return InferHead("", 0, None, {}, (binary,), outputs, _is_slow(outputs))


def _missing_inputs(spec: ModelSpec, seen: set[str]) -> InvalidInput:
    missing = ", ".join(repr(tensor.name) for tensor in spec.required if tensor.name not in seen)
    return InvalidInput(
        f"model {spec.name!r}: expected inputs {input_names(spec)}; {missing} is missing"
    )


def all_outputs(spec: ModelSpec, binary: bool) -> tuple[RequestedOutput, ...]:
    """Return all outputs of the model, for a request that names none."""
    return tuple(RequestedOutput(tensor, binary) for tensor in spec.outputs)


def is_heavy(outputs: tuple[RequestedOutput, ...]) -> bool:
    """Return whether some of the `outputs` are asked for in JSON, or as classes."""
    return any(output.classes > 0 or not output.binary for output in outputs)


def _is_slow(outputs: tuple[RequestedOutput, ...]) -> bool:
    return any(output.classes > 0 or output.tensor.datatype.name == "BYTES" for output in outputs)


def _one_element(shape: tuple[int, ...], data: Buffer) -> Array:
    """Return an array of `shape`, all sizes 1, whose only element is `data`."""
    array = np.empty(shape, object)
    array.flat[0] = bytes(data)
    return array


def _inputs(
    document: dict[str, Any], spec: ModelSpec, limits: DecodingLimits
) -> tuple[dict[str, Array], tuple[BinaryInput, ...], tuple[ReferencedInput, ...]]:
    """Return the inputs in the JSON itself, those behind it, and those that are files."""
    arrays: dict[str, Array] = {}
    binaries: list[BinaryInput] = []
    references: list[ReferencedInput] = []
    seen: set[str] = set()
    for entry in list_of(document, "inputs"):
        tensor = _tensor(entry, spec.inputs, "input", seen)
        where = f"input {tensor.name!r}"
        if (kind := entry.get("datatype")) != (name := tensor.datatype.name):
            raise InvalidInput(f"{where}: expected datatype {name}; got {value_text(kind)}")
        parameters = parameters_of(entry, where)
        if REF in parameters:
            references.append(referenced_input(entry, tensor, parameters, limits, _shape))
        else:
            size = parameters.get("binary_data_size")
            _read_input(entry, tensor, size, arrays, binaries, limits)
    if len(seen) < len(spec.inputs) and not seen.issuperset(t.name for t in spec.required):
        raise _missing_inputs(spec, seen)
    return arrays, tuple(binaries), tuple(references)


def _read_input(
    entry: dict[str, Any],
    tensor: TensorSpec,
    size: Any,
    arrays: dict[str, Array],
    binaries: list[BinaryInput],
    limits: DecodingLimits,
) -> None:
    """Put one entry of `inputs` into `arrays` or, with `size` bytes behind the JSON, `binaries`."""
    where, data = f"input {tensor.name!r}", entry.get("data")
    shape = _shape(entry, tensor, where)
    # a model whose rows have no axes takes one number a row, whichever way the client wrote that
    array_shape = shape if tensor.shape else shape[:1]
    if size is None:
        if data is None:
            expected = "data, or the parameter binary_data_size"
            raise InvalidInput(f"{where}: expected {expected}; got neither")
        arrays[tensor.name] = _json_array(data, tensor, shape, limits).reshape(array_shape)
        return
    _check_binary(data, size, tensor, shape, limits)
    start = binaries[-1].stop if binaries else 0
    binaries.append(BinaryInput(tensor, array_shape, start, start + size))


def _check_binary(
    data: Any, size: Any, tensor: TensorSpec, shape: tuple[int, ...], limits: DecodingLimits
) -> None:
    """Check an input of `size` bytes behind the JSON, before it is an array.

    Raises:
        InvalidInput: there is `data` in the JSON too, or `size` is no number of bytes.
        TooLarge: there are more rows or bytes than `limits` allow.
    """
    where = f"input {tensor.name!r}"
    if data is not None:
        raise InvalidInput(f"{where}: expected data or binary_data_size; got both")
    if not is_whole(size):
        expected = "binary_data_size: expected a number of bytes"
        raise InvalidInput(f"{where}: {expected}; got {value_text(size)}")
    limits.check(shape[0], 0, tensor.name)
    if tensor.datatype.name == "BYTES":
        check_elements(prod(shape), size, limits, tensor.name)


def _json_array(
    data: Any, tensor: TensorSpec, shape: tuple[int, ...], limits: DecodingLimits
) -> Array:
    """Return nested or flat lists as an array of `shape`."""
    count = prod(shape)
    limits.check(shape[0], count * tensor.datatype.numpy.itemsize, tensor.name)
    array = array_from_value(data, tensor, limits, count, flat=True)
    # lists end at an axis of size 0, and do not show the axes behind it
    fits = array.ndim == 1 or array.shape == (shape if array.size else shape[: array.ndim])
    if array.size != count or not fits:
        got = (
            f"{array.size} values"
            if array.ndim == 1
            else f"values of shape {shape_text(array.shape)}"
        )
        raise InvalidInput(
            f"input {tensor.name!r}: expected {count} values for shape {shape_text(shape)}; "
            f"got {got}"
        )
    return array.reshape(shape)


def _shape(entry: dict[str, Any], tensor: TensorSpec, where: str) -> tuple[int, ...]:
    """Return the shape of an entry of `inputs`, rows first, checked against the spec."""
    shape = entry.get("shape")
    if isinstance(shape, LongList):
        raise too_many_axes(shape.read(), where)
    found = checked_shape(shape, tensor.datatype.numpy.itemsize, where)
    expected = tensor.batch_shape
    # clients in C++ write a row without axes as an axis of size 1
    if not tensor.shape and len(found) == 2:
        expected = (-1, 1)
    fits = len(found) == len(expected) and all(
        want in (-1, have) for want, have in zip(expected, found, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"{where}: expected shape {shape_text(tensor.batch_shape)}; got {shape_text(found)}"
        )
    return found


def _outputs(
    document: dict[str, Any], spec: ModelSpec, binary: bool | None
) -> tuple[RequestedOutput, ...]:
    """Return the outputs asked for; `binary` is the request's own wish, None where it has none."""
    entries = document.get("outputs")
    if entries is None or entries == []:
        return all_outputs(spec, bool(binary))
    found: dict[str, RequestedOutput] = {}
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
            raise _wrong_classes(where, classes)
        found[tensor.name] = RequestedOutput(tensor, bool(binary if own is None else own), classes)
    return tuple(found[tensor.name] for tensor in spec.outputs if tensor.name in found)


def _wrong_classes(where: str, classes: Any) -> InvalidInput:
    expected = f"how many classes, at most {MAX_CLASSES}, of an output of numbers"
    return InvalidInput(f"{where}: classification: expected {expected}; got {value_text(classes)}")


def _tensor(entry: Any, tensors: tuple[TensorSpec, ...], kind: str, seen: set[str]) -> TensorSpec:
    """Return the tensor that an entry of `inputs` or `outputs` names; each name may come once."""
    name = object_of(entry, f"{kind}s").get("name")
    for tensor in tensors:
        if tensor.name == name:
            if name in seen:
                raise InvalidInput(f"{kind} {name!r}: expected once; got it twice")
            seen.add(name)
            return tensor
    raise InvalidInput(
        f"{kind}: expected one of {', '.join(repr(tensor.name) for tensor in tensors)}; got "
        f"{value_text(name)}"
    )
