"""`multipart/form-data`: files in fields with the names of the model's inputs.

An input takes pictures, if `model.yaml` says so, or any file as it is, if it is of BYTES. Several
files in one field are several rows of that input. A part of a form is a file whether or not it has
a file name: many clients name none for bytes from memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from batcher.codecs.content import Content
from batcher.codecs.formats.files import rows_from_files, takes_files
from batcher.codecs.formats.images import check_together, opened, rows_from_pictures
from batcher.core.error_text import brief
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge

MAX_FILES = 4096
"""Most parts of one body: by default the queue has room for as many rows and no more."""

_Files = list[tuple[bytes, str]]
"""The files of a field, each with its media type."""

_PIECE_BYTES = 1 << 16
"""Bytes that the parser takes at once. It looks for the boundary in one call of C, which keeps the
interpreter lock: 64 MiB full of what looks like the beginning of a boundary took 400 ms.
"""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether every tensor is made of pictures, or takes files as they are."""
    return all(tensor.image is not None or takes_files(tensor) for tensor in tensors)


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the files of each input as its rows, in the order of the body.

    Raises:
        DecodingError: the body is not multipart, or a file is not a whole picture.
        InvalidInput: a field is not an input of the model, or there are no fields.
        TooLarge: there are more than MAX_FILES files, too many pixels, or more rows than the
            limits of the content allow.
    """
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    fields = _files(content, list(tensors))
    for name, files in fields.items():
        # before any file is looked at
        content.limits.check(len(files), len(files) * tensors[name].row_bytes, name)
    pictures = {name: files for name, files in fields.items() if tensors[name].image is not None}
    plain = {
        name: rows_from_files([body for body, _ in files], tensors[name])
        for name, files in fields.items()
        if name not in pictures
    }
    return plain | _pictures(pictures, tensors, content)


def _pictures(
    fields: Mapping[str, _Files], tensors: Mapping[str, TensorSpec], content: Content
) -> dict[str, Array]:
    """Return the pictures of each field as rows; raises as `decode` does."""
    most = content.max_image_pixels
    found = {
        name: [opened(body, media_type, tensors[name], most) for body, media_type in files]
        for name, files in fields.items()
    }
    check_together(list(chain.from_iterable(found.values())), most)
    return {
        name: rows_from_pictures(pictures, tensors[name], content.limits)
        for name, pictures in found.items()
    }


def _files(content: Content, inputs: list[str]) -> dict[str, _Files]:
    """Return field name to its files, each with its media type."""
    files: dict[str, _Files] = {}
    for segment, body in _segments(content):
        if segment.name not in inputs:
            expected = ", ".join(map(repr, inputs))
            raise InvalidInput(
                f"multipart: expected files in field {expected}; got field {brief(segment.name)}"
            )
        files.setdefault(segment.name, []).append((body, (segment.content_type or "").lower()))
    if not files:
        raise InvalidInput(
            f"multipart: expected files in field {', '.join(map(repr, inputs))}; got none"
        )
    return files


def _segments(content: Content) -> list[tuple[MultipartSegment, bytes]]:
    """Return each part's head and bytes."""
    boundary = content.parameters.get("boundary")
    if not boundary:
        raise DecodingError("Content-Type: expected multipart/form-data with a boundary; got none")
    found: list[tuple[MultipartSegment, list[bytes]]] = []
    try:
        with PushMultipartParser(
            boundary, content_length=len(content.body), max_segment_count=MAX_FILES
        ) as parser:
            for start in range(0, len(content.body), _PIECE_BYTES):
                for event in parser.parse(bytes(content.body[start : start + _PIECE_BYTES])):
                    if isinstance(event, MultipartSegment):
                        found.append((event, []))
                    elif event:
                        found[-1][1].append(bytes(event))
    except (MultipartError, ValueError) as err:
        if isinstance(err, ParserLimitReached) and len(found) >= MAX_FILES:
            raise TooLarge(f"multipart: expected at most {MAX_FILES} files; got more") from err
        raise DecodingError(
            f"body: expected multipart/form-data with boundary {brief(boundary)}: {err}"
        ) from err
    return [(segment, b"".join(pieces)) for segment, pieces in found]
