"""The table of formats of the native routes, in the server's order of preference.

A new format is a file in `formats/` and a row in this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats import (
    csv_answers,
    csv_rows,
    files,
    images,
    json_lines,
    json_lists,
    msgpack_maps,
    multipart_files,
    npy,
    octet_stream,
)
from batcher.codecs.formats.base64_pictures import takes_pictures
from batcher.codecs.formats.msgpack_tokens import has_few_tokens
from batcher.codecs.joining import LARGE_BYTES
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError

Decode = Callable[[Content, ModelSpec], dict[str, Array]]
Encode = Callable[[InferenceResponse, ModelSpec], Buffer]
Carries = Callable[[tuple[TensorSpec, ...]], bool]


def _always(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False


def _has_bytes(tensors: tuple[TensorSpec, ...]) -> bool:
    return any(tensor.datatype.name == "BYTES" for tensor in tensors)


@dataclass(frozen=True, slots=True)
class Format:
    """A media type, and how bodies of that type are read and written.

    Attributes:
        media_type: name of the format; also the `Content-Type` of answers in the format.
        carries: returns whether the format can hold tensors of these specs.
        decode: body to inputs.
        encode: response to body; None for a format of requests only.
        aliases: other media types that clients use for the format.
        pooled: whether decoding is heavy enough to run on the CPU pool.
        pooled_bytes: bytes from which a body of a format that is pooled runs there.
        is_text: returns whether a body costs a step for each value, as text does. A large body of
            that kind is decoded in the process for heavy codecs. None for a format of bytes.
            MessagePack of arrays counts as text from LARGE_MSGPACK_BYTES on.
        writes_text: returns whether answers with these outputs cost a step for each value.
        reads_pictures: whether pictures may stand in the text of a body, as base64.
        names_files: whether addresses of files may stand in place of values.
        bind: returns a `decode` for one model whose only argument is the body. It is there for a
            format whose decoding costs less than passing the usual arguments; None for the others.
    """

    media_type: str
    carries: Carries
    decode: Decode
    encode: Encode | None = None
    aliases: tuple[str, ...] = ()
    pooled: bool = False
    pooled_bytes: int = 0
    is_text: Callable[[Buffer], bool] | None = None
    writes_text: Carries = _never
    reads_pictures: bool = False
    names_files: bool = False
    bind: Callable[[ModelSpec], Callable[[Buffer], dict[str, Array]]] | None = None

    @property
    def title(self) -> str:
        """Name of the format in an error, and on a page."""
        return "any other type, taken as a file" if self is ANY_FILE else self.media_type

    def carries_inputs(self, spec: ModelSpec) -> bool:
        """Return whether a body can hold a request for `spec`, or one without optional inputs."""
        return self.carries(spec.inputs) or self.carries(spec.required)

    def spec_of_body(self, spec: ModelSpec) -> ModelSpec:
        """Return `spec` with those inputs alone that a body can hold."""
        return spec if self.carries(spec.inputs) else spec.of_required()

    def is_pooled(self, spec: ModelSpec) -> bool:
        """Return whether decoding for the model `spec` may be too slow for the loop."""
        return self.pooled or (self.reads_pictures and takes_pictures(spec))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a format be pickled by its name, so that other processes find their own row."""
        return format_named, (self.media_type,)


JSON = Format(
    "application/json",
    json_lists.carries,
    json_lists.decode,
    json_lists.encode,
    ("text/json",),
    is_text=_always,
    writes_text=_always,
    reads_pictures=True,
    names_files=True,
)
LARGE_MSGPACK_BYTES = 2 << 20
"""Bytes from which MessagePack of arrays is decoded in the process for heavy codecs.

The unpacker copies arrays, and keeps the interpreter lock: 2 MiB take up to 1.7 ms where memory is
fresh, 8 MiB up to 6 ms. The way to the process costs more: 1 and 2 MiB are answered a third less
often by that way.
"""

MSGPACK = Format(
    "application/msgpack",
    msgpack_maps.carries,
    msgpack_maps.decode,
    msgpack_maps.encode,
    ("application/x-msgpack", "application/vnd.msgpack"),
    is_text=lambda body: len(body) >= LARGE_MSGPACK_BYTES or not has_few_tokens(body),
    writes_text=_has_bytes,
    names_files=True,
)
OCTET_STREAM = Format(
    "application/octet-stream",
    octet_stream.carries,
    octet_stream.decode,
    octet_stream.encode,
    bind=octet_stream.bind,
)
NPY = Format("application/x-npy", npy.carries, npy.decode, npy.encode, ("application/npy",))
CSV = Format(
    "text/csv",
    csv_rows.carries,
    csv_rows.decode,
    csv_answers.encode,
    is_text=_always,
    writes_text=_always,
)
CSV_WITHOUT_HEADER = Format(
    "text/csv; header=absent",
    csv_rows.carries,
    csv_rows.decode,
    partial(csv_answers.encode, with_header=False),
    is_text=_always,
    writes_text=_always,
)
"""The form of CSV answers that a client gets who wants no header."""
JSON_LINES = Format(
    "application/jsonlines",
    json_lines.carries,
    json_lines.decode,
    json_lines.encode,
    ("application/x-jsonlines", "application/jsonl", "application/x-ndjson"),
    is_text=_always,
    writes_text=_always,
    reads_pictures=True,
    names_files=True,
)
PICTURES = tuple(
    Format(
        media_type,
        images.carries,
        images.decode,
        aliases=tuple(alias for alias, name in images.ALIASES.items() if name == media_type),
        pooled=True,
    )
    for media_type in images.FORMATS
)
MULTIPART = Format(
    "multipart/form-data", multipart_files.carries, multipart_files.decode, pooled=True
)
# To recode text costs a step for each character: 32 MiB of UTF-16 took five seconds.
TEXT = Format("text/plain", files.carries, files.decode_text, is_text=_always)
ANY_FILE = Format("*/*", files.carries, files.decode, pooled=True, pooled_bytes=LARGE_BYTES)
"""A body of a type that is in no row above, or that no row above reads for the model."""

FORMATS: tuple[Format, ...] = (
    JSON,
    MSGPACK,
    OCTET_STREAM,
    NPY,
    CSV,
    JSON_LINES,
    *PICTURES,
    MULTIPART,
    TEXT,
    ANY_FILE,
)

_BY_NAME = {
    name: entry
    for entry in (*FORMATS, CSV_WITHOUT_HEADER)
    for name in (entry.media_type, *entry.aliases)
}


def format_named(media_type: str) -> Format | None:
    """Return the format that `media_type`, in lower case, names; None if there is none."""
    return _BY_NAME.get(media_type)


def formats_of_requests(spec: ModelSpec) -> list[Format]:
    """Return the formats that can hold a request for `spec`, in order of preference."""
    return [entry for entry in FORMATS if entry.carries_inputs(spec)]


def formats_for(tensors: tuple[TensorSpec, ...], answers: bool = False) -> list[Format]:
    """Return the formats that can hold `tensors`, in order of preference.

    With `answers`, only formats that the server can also write.
    """
    return [
        entry
        for entry in FORMATS
        if entry.carries(tensors) and (entry.encode is not None or not answers)
    ]


def decode_body(entry: Format, content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in `content`, read in the format `entry`.

    Raises:
        DecodingError: the body is empty, or is not what its media type says.
        InvalidInput: a value does not fit its input.
    """
    if not content.body:
        raise DecodingError(f"body: expected {entry.media_type}; got an empty body")
    return entry.decode(content, entry.spec_of_body(spec))
