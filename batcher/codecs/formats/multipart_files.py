"""`multipart/form-data`: picture files in fields named after the model's inputs.

Several files are several rows.
"""

from __future__ import annotations

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from batcher.codecs.content import Content
from batcher.codecs.formats.images import rows_from_pictures
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge

MAX_FILES = 4096
"""Most parts of one body: the default bound of the queue, which could hold no more rows."""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether every tensor is made of pictures."""
    return all(tensor.image is not None for tensor in tensors)


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return every input as its files in the order they were sent.

    Raises:
        DecodingError: not multipart, or a file that is not a whole picture.
        InvalidInput: a field that is no input of the model, or one without a file.
    """
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    files: dict[str, list[tuple[bytes, str]]] = {}
    for segment, body in _segments(content):
        if segment.name not in tensors:
            expected = ", ".join(map(repr, tensors))
            raise InvalidInput(
                f"multipart: expected files in field {expected}; got field {segment.name!r:.80}"
            )
        if segment.filename is None:
            raise InvalidInput(
                f"multipart: expected a file in field {segment.name!r}; got a value without a file "
                "name"
            )
        files.setdefault(segment.name, []).append((body, (segment.content_type or "").lower()))
    if not files:
        raise InvalidInput(
            f"multipart: expected files in field {', '.join(map(repr, tensors))}; got none"
        )
    return {
        name: rows_from_pictures(parts, tensors[name], content.max_image_pixels)
        for name, parts in files.items()
    }


def _segments(content: Content) -> list[tuple[MultipartSegment, bytes]]:
    boundary = content.parameters.get("boundary")
    if not boundary:
        raise DecodingError("Content-Type: expected multipart/form-data with a boundary; got none")
    found: list[tuple[MultipartSegment, list[bytes]]] = []
    try:
        with PushMultipartParser(
            boundary, content_length=len(content.body), max_segment_count=MAX_FILES
        ) as parser:
            for event in parser.parse(bytes(content.body)):
                if isinstance(event, MultipartSegment):
                    found.append((event, []))
                elif event:
                    found[-1][1].append(bytes(event))
    except (MultipartError, ValueError) as err:
        if isinstance(err, ParserLimitReached) and len(found) >= MAX_FILES:
            raise TooLarge(f"multipart: expected at most {MAX_FILES} files; got more") from err
        raise DecodingError(
            f"body: expected multipart/form-data with boundary {boundary!r:.80}: {err}"
        ) from err
    return [(segment, b"".join(pieces)) for segment, pieces in found]
