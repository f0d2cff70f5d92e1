"""Responses and documents become messages.

Tensors always go out as bytes (`raw_output_contents`): clients read nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from google.protobuf.json_format import Parse
from google.protobuf.message import Message

from batcher.codecs.content import Buffer
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.oip.request import InferHead
from batcher.codecs.oip.response import output_entry
from batcher.core.request import InferenceResponse
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb

AnyMessage = TypeVar("AnyMessage", bound=Message)


class WrittenAnswer(NamedTuple):
    """A message that was written already, since it is large.

    Attributes:
        model_name: name of the model that answered.
        pieces: bytes of the message, in pieces.
    """

    model_name: str
    pieces: tuple[bytes | memoryview, ...]

    def ByteSize(self) -> int:
        """Return how many bytes the message has, as a message does."""
        return sum(map(len, self.pieces))

    def SerializeToString(self) -> bytes:
        """Return the bytes, as a message does."""
        return b"".join(self.pieces)


InferAnswer = pb.ModelInferResponse | WrittenAnswer


def message_of(response: InferenceResponse, head: InferHead) -> pb.ModelInferResponse:
    """Return the message that carries the outputs that `head` asks for. Any thread."""
    pieces: list[Buffer] = []
    outputs = []
    for wanted in head.outputs:
        entry = output_entry(wanted, response, pieces)
        outputs.append(
            pb.ModelInferResponse.InferOutputTensor(
                name=entry["name"], datatype=entry["datatype"], shape=entry["shape"]
            )
        )
    return pb.ModelInferResponse(
        model_name=response.model,
        model_version=response.version,
        id=head.id,
        outputs=outputs,
        raw_output_contents=[bytes(piece) for piece in pieces],
    )


def written_answer(response: InferenceResponse, head: InferHead) -> memoryview:
    """Return the bytes of the message that `message_of` makes. Any process."""
    return memoryview(message_of(response, head).SerializeToString())


def fill_message(message: AnyMessage, document: dict[str, Any]) -> AnyMessage:
    """Return `message` with its fields filled from `document`. Any thread.

    `document` has the names of the protocol's JSON form.
    """
    return Parse(to_json(document), message)
