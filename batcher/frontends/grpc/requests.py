"""A `ModelInferRequest` becomes a request, checked by the rules of the protocol's JSON form.

A message is first laid out as a document of the JSON form, without the bytes of its tensors. So one
code reads both forms and refuses errors in the same words. Bytes in `raw_input_contents` become
arrays without a copy; typed contents are made such bytes first.

Clients send the same message again and again, with other bytes and another id. So the parsed head
of a message is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batcher.codecs.content import Buffer, Files
from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.codecs.formats.references import REF
from batcher.codecs.oip.members import MAX_PARAMETERS
from batcher.codecs.oip.request import InferHead, array_from_bytes, is_heavy, read_document
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.error_text import brief
from batcher.core.shapes import MAX_AXES, too_many_axes
from batcher.core.spec import Array, ModelSpec
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.oip.answering import (
    MAX_KEPT_HEAD_BYTES,
    MAX_KEPT_HEADS,
    has_slow_inputs,
)
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.large import LargeTensors
from batcher.frontends.grpc.typed import TypedInput, typed_bytes

FINAL_RESPONSE_PARAMETER = "triton_enable_empty_final_response"
"""A parameter that clients always send in streams, and that is ignored.

It matters only to a server that gives several answers to one request.
"""


class ParsedRequest(NamedTuple):
    """The request in one message.

    Attributes:
        head: everything but the bytes of the inputs; all outputs are to be bytes.
        raw: the bytes of each input, in the order of `head.binaries`.
        size: bytes of all inputs together.
        typed: the inputs with typed contents too large for the loop; `raw` is empty then.
    """

    head: InferHead
    raw: tuple[Buffer, ...]
    size: int
    typed: tuple[TypedInput, ...] = ()

    def inputs(self, files: Files | None = None) -> dict[str, Array]:
        """Return all inputs, as views of their bytes, and of `files` that have been fetched.

        Any thread. Raises DecodingError, InvalidInput or TooLarge.
        """
        found = {
            binary.tensor.name: array_from_bytes(binary.tensor, binary.shape, raw)
            for binary, raw in zip(self.head.binaries, self.raw, strict=True)
        }
        for each in self.head.references:
            found[each.tensor.name] = each.array(files)
        return found


class InferMessageReader:
    """Reads the requests for one model. Reactor thread.

    Attributes:
        slow: whether some inputs are BYTES, which are decoded one by one.
    """

    def __init__(self, spec: ModelSpec, limits: DecodingLimits = NO_LIMITS) -> None:
        """Read requests for the model `spec`, whose inputs are within `limits`."""
        self._spec = spec
        self._limits = limits
        self._heads: dict[bytes, InferHead] = {}
        self.slow = has_slow_inputs(spec)

    def read(
        self, message: pb.ModelInferRequest, tensors: LargeTensors | None = None
    ) -> ParsedRequest:
        """Return the request in `message`, and take the bytes of the inputs out of the message.

        `tensors` are what was cut out of a large message before.

        Raises:
            InvalidInput: a field is missing, or has a wrong name, dtype or shape.
            NotServed: the request wants shared memory or a sequence.
            TooLarge: an input has more rows or bytes than the queue can ever hold.
        """
        self._check_counts(message)
        raw, typed = _take_raw(message) if tensors is None else _cut_raw(message, tensors)
        # The id differs from request to request: it is no part of the key, but of every answer.
        request_id, message.id = message.id, ""
        key = message.SerializeToString()
        message.id = request_id
        head = self._heads.get(key)
        if head is None:
            head = self._read_head(message, key)
        if request_id:
            head = head._replace(id=request_id)
        size = sum(map(len, raw)) + sum(len(each.contents) for each in typed)
        return ParsedRequest(head, raw, size, typed)

    def _check_counts(self, message: pb.ModelInferRequest) -> None:
        """Refuse more entries than can be right, before the entries are read one by one."""
        limits = {
            "inputs": len(self._spec.inputs),
            "outputs": len(self._spec.outputs),
            "parameters": MAX_PARAMETERS,
        }
        for field, limit in limits.items():
            count = len(getattr(message, field))
            if count > limit:
                raise InvalidInput(f"{field}: expected at most {limit}; got {count}")
        for entry in message.inputs:
            if len(entry.shape) > MAX_AXES:
                raise too_many_axes(len(entry.shape), f"input {brief(entry.name)}")

    def _read_head(self, message: pb.ModelInferRequest, key: bytes) -> InferHead:
        """Return the head of `message` without its id, and keep it by `key` if that is short."""
        parameters = _parameters(message.parameters)
        parameters.pop(FINAL_RESPONSE_PARAMETER, None)
        document: dict[str, Any] = {
            "parameters": parameters,
            "inputs": list(map(_input, message.inputs)),
            "outputs": [
                {"name": entry.name, "parameters": _parameters(entry.parameters)}
                for entry in message.outputs
            ],
        }
        head = read_document(document, self._spec, self._limits)
        # Clients of gRPC read bytes alone.
        outputs = tuple(output._replace(binary=True) for output in head.outputs)
        head = head._replace(outputs=outputs, heavy=is_heavy(outputs))
        if len(key) <= MAX_KEPT_HEAD_BYTES and not head.references:
            if len(self._heads) >= MAX_KEPT_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head


Taken = tuple[tuple[Buffer, ...], tuple[TypedInput, ...]]
"""The bytes of each input, or inputs whose typed contents are to be read apart."""


def _take_raw(message: pb.ModelInferRequest) -> Taken:
    """Take the bytes of each input out of `message`, whether they are there as such or typed."""
    inside = [entry for entry in message.inputs if REF not in entry.parameters]
    _check_raw(len(message.raw_input_contents), len(inside))
    raw = tuple(message.raw_input_contents)
    if not raw:
        raw = tuple(map(typed_bytes, inside))
        for entry in inside:
            entry.ClearField("contents")
    del message.raw_input_contents[:]
    return raw, ()


def _cut_raw(message: pb.ModelInferRequest, tensors: LargeTensors) -> Taken:
    """Return the bytes of each input; or none, and inputs whose contents are to be read apart."""
    inside = []
    for entry, contents in zip(message.inputs, tensors.contents, strict=True):
        is_file = REF in entry.parameters
        if contents and (is_file or tensors.raw):
            raise _both(entry, is_file)
        if not is_file:
            inside.append(TypedInput(entry.name, entry.datatype, contents))
    _check_raw(len(tensors.raw), len(inside))
    if tensors.raw:
        return tensors.raw, ()
    typed = tuple(inside)
    if sum(map(len, tensors.contents)) >= HEAVY_BYTES:
        return (), typed
    return tuple(typed_bytes(each.entry()) for each in typed), ()


def _check_raw(count: int, expected: int) -> None:
    if count not in (0, expected):
        raise InvalidInput(
            f"raw_input_contents: expected {expected}, one for each input, or none; got {count}"
        )


def _both(entry: pb.ModelInferRequest.InferInputTensor, is_file: bool) -> InvalidInput:
    other = REF if is_file else "raw_input_contents"
    return InvalidInput(f"input {brief(entry.name)}: expected contents or {other}; got both")


def parameters_document(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> dict[str, Any]:
    """Return the parameters of a call that loads or unloads a model."""
    return {name: _chosen(value) for name, value in parameters.items()}


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidInput(f"parameters: expected at most {MAX_PARAMETERS}; got {len(parameters)}")
    return {name: _chosen(value) for name, value in parameters.items()} if parameters else {}


def _chosen(parameter: pb.InferParameter | pb.ModelRepositoryParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def _input(entry: pb.ModelInferRequest.InferInputTensor) -> dict[str, Any]:
    if entry.HasField("contents") and entry.contents.ByteSize():
        raise _both(entry, REF in entry.parameters)
    parameters = _parameters(entry.parameters)
    if REF not in parameters:  # else there are no bytes
        # The bytes stand beside the document, not in it.
        parameters["binary_data_size"] = 0
    return {
        "name": entry.name,
        "datatype": entry.datatype,
        "shape": list(entry.shape),
        "parameters": parameters,
    }
