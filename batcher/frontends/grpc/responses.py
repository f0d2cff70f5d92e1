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
from batcher.frontends.grpc.wire import tag

AnyMessage = TypeVar("AnyMessage", bound=Message)

FINAL_RESPONSE = "triton_final_response"
"""The parameter that marks the last answer to a request of a stream."""


def _final_flag() -> bytes:
    final = pb.ModelInferResponse()
    final.parameters[FINAL_RESPONSE].bool_param = True
    return final.SerializeToString()


_FINAL_FLAG = _final_flag()
_CONTENTS = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_INFER_RESPONSE = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


class WrittenAnswer(NamedTuple):
    """A message that was written already, since it is large.

    Attributes:
        model_name: name of the model that answered.
        model_version: number of the version that answered.
        data: bytes of the message.
    """

    model_name: str
    model_version: str
    data: bytes

    def ByteSize(self) -> int:
        """Return how many bytes the message has, as a message does."""
        return len(self.data)

    def SerializeToString(self) -> bytes:
        """Return the bytes, as a message does."""
        return self.data


InferAnswer = pb.ModelInferResponse | WrittenAnswer


def message_of(response: InferenceResponse, head: InferHead) -> pb.ModelInferResponse:
    """Return the message that carries the outputs that `head` asks for. Any thread."""
    message, pieces = _parts(response, head)
    message.raw_output_contents.extend(map(bytes, pieces))
    return message


def answer_pieces(response: InferenceResponse, head: InferHead) -> list[Buffer]:
    """Return the bytes of the message that `message_of` makes, in pieces. Any process."""
    message, contents = _parts(response, head)
    pieces: list[Buffer] = [message.SerializeToString()]
    for content in contents:
        # Only a view can go to another process without a copy.
        pieces += tag(_CONTENTS, len(content)), memoryview(content)
    return pieces


def in_stream(pieces: list[Buffer]) -> list[Buffer]:
    """Return the pieces of a `ModelStreamInferResponse` around those of a response.

    Messages that stand one behind the other are read as one: the flag stands behind the rest.
    """
    pieces = [*pieces, _FINAL_FLAG]
    return [tag(_INFER_RESPONSE, sum(map(len, pieces))), *pieces]


def _parts(
    response: InferenceResponse, head: InferHead
) -> tuple[pb.ModelInferResponse, list[Buffer]]:
    """Return the message without the bytes of its outputs, and those bytes."""
    pieces: list[Buffer] = []
    outputs = []
    for wanted in head.outputs:
        entry = output_entry(wanted, response, pieces)
        outputs.append(
            pb.ModelInferResponse.InferOutputTensor(
                name=entry["name"], datatype=entry["datatype"], shape=entry["shape"]
            )
        )
    message = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=head.id, outputs=outputs
    )
    return message, pieces


def fill_message(message: AnyMessage, document: dict[str, Any]) -> AnyMessage:
    """Return `message` with its fields filled from `document`. Any thread.

    `document` has the names of the protocol's JSON form.
    """
    return Parse(to_json(document), message)
