"""Messages to requests: what a `ModelInferRequest` says, checked by the rules of the protocol's JSON form.

A message is laid out as that form has it, without its tensors' bytes, so that both are read by the
same code and refused with the same words. Bytes in `raw_input_contents` become arrays as they
stand; typed contents are made such bytes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batcher.codecs.oip.request import InferHead, array_from_bytes, read_document
from batcher.core.spec import Array, ModelSpec
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.oip.infer import LONGEST_HEAD, MOST_HEADS, has_slow_inputs
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.typed import typed_bytes

MOST_PARAMETERS = 100
"""Most parameters of a request or a tensor."""

FINAL = "triton_enable_empty_final_response"
"""What clients always send to streams: only a stream with several answers to a request would have
to look at it.
"""


class Asked(NamedTuple):
    """What a message asks for.

    Attributes:
        head: everything but the bytes; every output is wanted as bytes.
        raw: the bytes of each input, in the order of `head.binaries`.
        size: bytes of all inputs.
    """

    head: InferHead
    raw: tuple[bytes, ...]
    size: int

    def inputs(self) -> dict[str, Array]:
        """Return all inputs; those that came as bytes are views of them. Raises DecodingError."""
        return {
            binary.tensor.name: array_from_bytes(binary.tensor, binary.shape, raw)
            for binary, raw in zip(self.head.binaries, self.raw, strict=True)
        }


class Requests:
    """Reads the requests of one model.

    What a message says besides its bytes and its name repeats, and is kept.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Read what is asked of the model `spec`."""
        self._spec = spec
        self._heads: dict[bytes, InferHead] = {}
        self.slow = has_slow_inputs(spec)

    def read(self, message: pb.ModelInferRequest) -> Asked:
        """Return what `message` asks for, and take the bytes of its inputs out of it.

        Raises:
            InvalidInput: a field is missing or has another name, dtype or shape than it should.
            NotServed: it asks for shared memory or a sequence.
        """
        self._check_counts(message)
        raw = tuple(message.raw_input_contents)
        if not raw:
            raw = tuple(map(typed_bytes, message.inputs))
            for entry in message.inputs:
                entry.ClearField("contents")
        elif len(raw) != len(message.inputs):
            expected = f"{len(message.inputs)}, one for each input, or none"
            raise InvalidInput(f"raw_input_contents: expected {expected}; got {len(raw)}")
        name, message.id = message.id, ""
        del message.raw_input_contents[:]
        key = message.SerializeToString()
        message.id = name
        found = self._heads.get(key)
        if found is None:
            found = self._head(message)._replace(id="")
            if len(key) <= LONGEST_HEAD:
                if len(self._heads) >= MOST_HEADS:
                    self._heads.clear()
                self._heads[key] = found
        return Asked(found._replace(id=name) if name else found, raw, sum(map(len, raw)))

    def _check_counts(self, message: pb.ModelInferRequest) -> None:
        """Refuse what has more entries than can be right before they are looked at one by one."""
        most = {
            "inputs": len(self._spec.inputs),
            "outputs": len(self._spec.outputs),
            "parameters": MOST_PARAMETERS,
        }
        for field, count in most.items():
            if len(getattr(message, field)) > count:
                raise InvalidInput(
                    f"{field}: expected at most {count}; got {len(getattr(message, field))}"
                )

    def _head(self, message: pb.ModelInferRequest) -> InferHead:
        parameters = _parameters(message.parameters)
        parameters.pop(FINAL, None)
        document: dict[str, Any] = {
            "id": message.id,
            "parameters": parameters,
            "inputs": list(map(_input, message.inputs)),
            "outputs": [
                {"name": entry.name, "parameters": _parameters(entry.parameters)}
                for entry in message.outputs
            ],
        }
        head = read_document(document, self._spec)
        return head._replace(outputs=tuple(wanted._replace(binary=True) for wanted in head.outputs))


def parameters_document(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> dict[str, Any]:
    """Return the parameters of a call that loads or unloads a model."""
    return {name: _chosen(value) for name, value in parameters.items()}


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    if len(parameters) > MOST_PARAMETERS:
        raise InvalidInput(f"parameters: expected at most {MOST_PARAMETERS}; got {len(parameters)}")
    return {name: _chosen(value) for name, value in parameters.items()} if parameters else {}


def _chosen(parameter: pb.InferParameter | pb.ModelRepositoryParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def _input(entry: pb.ModelInferRequest.InferInputTensor) -> dict[str, Any]:
    if entry.HasField("contents") and entry.contents.ByteSize():
        raise InvalidInput(
            f"input {entry.name!r:.60}: expected contents or raw_input_contents; got both"
        )
    parameters = _parameters(entry.parameters) | {
        "binary_data_size": 0
    }  # what there is stands beside the document
    return {
        "name": entry.name,
        "datatype": entry.datatype,
        "shape": list(entry.shape),
        "parameters": parameters,
    }
