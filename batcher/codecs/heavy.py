"""What is asked of the process for heavy codecs: reading large bodies, and writing large answers.

Text costs a step for each value, and most codecs of C keep the interpreter lock meanwhile. So the
loop reads and writes text up to `HEAVY_BYTES` by itself, and leaves all that is larger to another
process. That process calls the functions of this module: their arguments and results can be
pickled, and their bodies and answers are memory views, which are not copied on the way.

A body of arrays in bytes is not heavy: the arrays are views of the body. Large MessagePack is: its
reader copies the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping

from batcher.codecs.content import Buffer, Content, Files
from batcher.codecs.content_coding import HEAVY_BYTES, Body, plain_body
from batcher.codecs.embeddings import Embedder, Wish, has_many_values
from batcher.codecs.embeddings import decode as decode_wish
from batcher.codecs.embeddings import encode as encode_embeddings
from batcher.codecs.format_table import decode_body, format_named
from batcher.codecs.joining import LARGE_BYTES
from batcher.codecs.oip.request import InferHead, read_head
from batcher.codecs.oip.response import encode as encode_oip
from batcher.codecs.response_coding import compress
from batcher.codecs.tf_serving import decode as decode_tf_serving
from batcher.codecs.tf_serving import encode as encode_tf_serving
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.element_sizes import sized
from batcher.core.request import InferenceResponse, is_larger
from batcher.core.spec import Array, ModelSpec

CodedAnswer = tuple[memoryview, int | None]
"""The body of an answer, and the bytes of its JSON if binary tensors follow the JSON."""


def is_heavy(body: Body) -> bool:
    """Return whether `body`, if it is text, is too large for the loop."""
    return len(body) >= HEAVY_BYTES


def is_heavy_answer(response: InferenceResponse) -> bool:
    """Return whether the outputs of `response`, written as text, are too much for the loop."""
    return is_larger(response.outputs, HEAVY_BYTES)


def rows_of_large_answer(spec: ModelSpec) -> int:
    """Return the fewest rows of an answer of LARGE_BYTES; 0 if rows have no fixed size."""
    tensors = spec.outputs
    if any(tensor.free_axes or tensor.datatype.name == "BYTES" for tensor in tensors):
        return 0
    return -(-LARGE_BYTES // max(sum(tensor.row_bytes for tensor in tensors), 1))


def is_large_answer(response: InferenceResponse) -> bool:
    """Return whether the outputs of `response` are too many bytes to copy on the loop."""
    return is_larger(response.outputs, LARGE_BYTES)


def decode_heavy(body: Body, content: Content, spec: ModelSpec) -> Mapping[str, Array]:
    """Return the inputs in `body`, which `content` describes; raises as `decode_body` does."""
    entry = format_named(content.media_type)
    assert entry is not None, "the caller has found the format"
    return sized(decode_body(entry, content._replace(body=plain_body(body)), spec))


def decode_with_files(
    files: Files, body: Body, content: Content, spec: ModelSpec
) -> Mapping[str, Array]:
    """Return the inputs in `body`, which names `files`; raises as `decode_body` does."""
    return decode_heavy(body, content._replace(files=files), spec)


def encode_heavy(response: InferenceResponse, media_type: str, spec: ModelSpec) -> memoryview:
    """Return the answer in the format that `media_type` names."""
    entry = format_named(media_type)
    assert entry is not None, "the caller has found the format"
    assert entry.encode is not None, "the caller has chosen a format of answers"
    return memoryview(entry.encode(response, spec))


def decode_heavy_oip(
    body: Body, json_length: int | None, spec: ModelSpec, limits: DecodingLimits
) -> tuple[InferHead, Mapping[str, Array]]:
    """Return head and inputs of a request of the Open Inference Protocol.

    `json_length` is the bytes of the JSON before binary tensors, None for JSON alone. The head is
    without the inputs. Raises as `read_head` and `InferHead.inputs` do.
    """
    plain = memoryview(plain_body(body))
    length = len(plain) if json_length is None else json_length
    head = read_head(plain[:length], spec, limits)
    inputs = head.inputs(plain[length:])
    return head._replace(arrays={}), sized(inputs)


def oip_inputs_with_files(files: Files, head: InferHead, data: Buffer) -> Mapping[str, Array]:
    """Return the inputs of a request that names `files`; raises as `InferHead.inputs` does."""
    return sized(head.inputs(data, files))


def encode_heavy_oip(response: InferenceResponse, head: InferHead, coding: str) -> CodedAnswer:
    """Return the answer that `head` asks for, in the content coding `coding` unless it is empty."""
    body, json_length = encode_oip(response, head)
    return memoryview(compress(body, coding) if coding else body), json_length


def decode_heavy_tf_serving(
    body: Body, spec: ModelSpec, limits: DecodingLimits, max_image_pixels: int
) -> tuple[Mapping[str, Array], bool]:
    """Return inputs and layout as `tf_serving.decode` does."""
    inputs, by_row = decode_tf_serving(plain_body(body), spec, limits, max_image_pixels)
    return sized(inputs), by_row


def encode_heavy_tf_serving(
    response: InferenceResponse, spec: ModelSpec, by_row: bool
) -> memoryview:
    """Return the answer as `tf_serving.encode` does."""
    return memoryview(encode_tf_serving(response, spec, by_row))


def is_heavy_wish(body: Body) -> bool:
    """Return whether `body`, a request for embeddings, is too large or too finely cut."""
    return is_heavy(body) or has_many_values(plain_body(body))


def decode_heavy_embeddings(body: Body) -> Wish:
    """Return what is wished for as `embeddings.decode` does."""
    return decode_wish(plain_body(body))


def encode_heavy_embeddings(
    response: InferenceResponse, wish: Wish, embedder: Embedder
) -> memoryview:
    """Return the answer as `embeddings.encode` does."""
    return memoryview(encode_embeddings(response, wish, embedder))
