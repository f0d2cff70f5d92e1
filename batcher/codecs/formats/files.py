"""A file as it is, for a model of one BYTES input: `text/plain`, and every type that nobody reads.

The body is the one element of one row: a text, a recording, a page of PDF. No other format reads
such a body for such a model, so whatever its media type says, the bytes are the model's to read. A
body of `text/plain` is recoded to UTF-8 where its charset is another one. A body that is not in its
charset is refused.
"""

from __future__ import annotations

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.core.copied_bytes import copied_bytes
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError


def takes_files(tensor: TensorSpec) -> bool:
    """Return whether one element can be a whole row of `tensor`, and that element is bytes."""
    return tensor.datatype.name == "BYTES" and all(size in (-1, 1) for size in tensor.shape)


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a body can hold `tensors`: exactly one, whose rows can be one file."""
    return len(tensors) == 1 and takes_files(tensors[0])


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the body as the only row."""
    return {spec.inputs[0].name: rows_from_files([content.body], spec.inputs[0])}


def decode_text(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the body, in UTF-8, as the only row. Raises DecodingError: the charset is wrong."""
    text = content.text()
    _check_utf_8(text, len(content.body) - len(text))
    return {spec.inputs[0].name: rows_from_files([text], spec.inputs[0])}


def _check_utf_8(text: Buffer, skipped: int) -> None:
    """Check that `text` is UTF-8, as every text is that was recoded.

    `skipped` is the number of bytes before the text, those of a byte order mark. Raises
    DecodingError.
    """
    try:
        str(text, "utf-8")
    except UnicodeDecodeError as err:
        raise DecodingError(
            f"body: expected text in UTF-8; got byte 0x{text[err.start]:02x} at offset "
            f"{skipped + err.start}: name another charset, as in `text/plain; charset=latin-1`, or "
            "send bytes that are no text as application/octet-stream"
        ) from err


def rows_from_files(files: list[Buffer], tensor: TensorSpec) -> Array:
    """Return files as rows of `tensor`: shape (files, *row shape), all axes of a row of size 1."""
    flat = np.empty(len(files), object)
    flat[:] = [copied_bytes(file) for file in files]
    rows: Array = flat.reshape(len(files), *(1 for _ in tensor.shape))
    return rows
