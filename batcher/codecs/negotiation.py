"""Choosing the format of a body by `Content-Type`, and the format of its answer by `Accept`.

Header values repeat from request to request, so their meanings are kept by their text, in bounded
caches. A value longer than MAX_VALUE_CHARS is refused before anything reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import unquote

from batcher.codecs.format_table import (
    ANY_FILE,
    CSV,
    CSV_WITHOUT_HEADER,
    JSON,
    MSGPACK,
    Format,
    format_named,
    formats_for,
    formats_of_requests,
)
from batcher.codecs.q_values import q_value
from batcher.core.bounded_cache import BoundedCache
from batcher.core.error_text import brief
from batcher.core.spec import FLOATS, ModelSpec, TensorSpec
from batcher.errors import HeadersTooLarge, NotAcceptable, UnsupportedMediaType

_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))')
_ESCAPED = re.compile(r"\\(.)")
_LIST_PIECE = re.compile(r'[^,"]+|"(?:[^"\\]|\\.)*"?|,')
"""A piece of `Accept`: text, a quoted string, or the comma between two items.

The last quote may be missing: if the pattern needed it, the search would try every opening quote up
to the end of the header, which takes quadratic time.
"""

MAX_VALUE_CHARS = 1024
"""Longest `Content-Type` or `Accept` that is read. Browsers send 200 characters; reading 1024 takes
less than a millisecond.
"""

MAX_RANGES = 64
"""Most items of `Accept`: a client that names more has named all that there are."""

_UNNAMED = {
    "": "",
    "application/x-www-form-urlencoded": (
        ", which `curl -d` sends unless `-H 'Content-Type: …'` names the type"
    ),
}
"""What says nothing of the body, such as the type that curl sends by itself; the body may be JSON
that nobody should take for a file. Each has the advice that its refusal gives.
"""

MediaType = tuple[str, Mapping[str, str]]

_media_types: BoundedCache[str, MediaType] = BoundedCache(1 << 20)
_accepts: BoundedCache[str, dict[str, float]] = BoundedCache(1 << 20)


def _size_of(text: str) -> int:
    """Return the most bytes that `text` takes with its meaning: dictionaries of short texts."""
    return 1000 + 60 * len(text)


def media_type(header: str) -> MediaType:
    """Return the media type in a `Content-Type` value, in lower case, and its parameters.

    Text that is not a parameter is left out.

    Raises:
        HeadersTooLarge: the value has more than MAX_VALUE_CHARS characters.
    """
    _check_length("Content-Type", header)
    found = _media_types.kept.get(header)
    if found is None:
        found = _read_media_type(header)
        _media_types.put(header, found, _size_of(header))
    return found


def _check_length(name: str, value: str) -> None:
    if len(value) > MAX_VALUE_CHARS:
        raise HeadersTooLarge(
            f"{name}: expected at most {MAX_VALUE_CHARS} characters; got {len(value)}"
        )


def _read_media_type(header: str) -> MediaType:
    name, _, rest = header.partition(";")
    parameters: dict[str, str] = {}
    for key, quoted, plain in _PARAMETER.findall(f";{rest}"):
        value = _ESCAPED.sub(r"\1", quoted) if quoted else plain
        # RFC 2231: charset'language'percent-encoded
        if key.endswith("*"):
            value = unquote(value.rpartition("'")[2])
        parameters.setdefault(key.lower().rstrip("*"), value)
    return name.strip().lower(), MappingProxyType(parameters)


def request_format(header: str, spec: ModelSpec) -> Format:
    """Return the format that the `Content-Type` value `header` names, for inputs of `spec`.

    A model of one BYTES input takes a body of every other type as a file.

    Raises:
        UnsupportedMediaType: the media type is missing, is unknown, or cannot hold this model's
            inputs.
    """
    name, _ = media_type(header)
    found = format_named(name)
    if found is not None and found.carries_inputs(spec):
        return found
    if name not in _UNNAMED and ANY_FILE.carries_inputs(spec):
        return ANY_FILE
    expected = ", ".join([entry.title for entry in formats_of_requests(spec)])
    inputs = ", ".join([f"{tensor.name} {tensor.describe()}" for tensor in spec.inputs])
    why = f", which cannot carry {inputs}" if found is not None else _UNNAMED.get(name, "")
    if name.startswith("image/") and any(_may_be_picture(each) for each in spec.inputs):
        why += ": an input takes pictures if `image:` says so in model.yaml, see /docs"
    raise UnsupportedMediaType(
        f"Content-Type: expected one of {expected}; got {brief(name) if name else 'none'}{why}"
    )


def _may_be_picture(tensor: TensorSpec) -> bool:
    shape, is_picture = tensor.shape, tensor.image is not None
    return not is_picture and len(shape) in (2, 3) and tensor.datatype.name in ("UINT8", *FLOATS)


def answer_format(
    accept: str, body_format: Format, spec: ModelSpec, csv_header: str = ""
) -> Format:
    """Return the format to answer in: the one that `accept` weighs highest.

    Among equals, and without a wish, that is the body's own format, or JSON if the body's format
    cannot carry the outputs. CSV has a header as `accept` says, by `header=present` or
    `header=absent`, and without that as `csv_header` says.

    Raises:
        NotAcceptable: no format that the client accepts can carry this model's outputs.
        HeadersTooLarge: `accept` has more than MAX_VALUE_CHARS characters or MAX_RANGES items.
    """
    _check_length("Accept", accept)
    candidates = formats_for(spec.outputs, answers=True)
    default = body_format if body_format in candidates else JSON
    if not accept or accept == "*/*":
        return _with_header(default, csv_header)
    ranges = _ranges(accept)
    ranked = [(_quality(ranges, entry), entry is default, entry) for entry in candidates]
    quality, _, best = max(ranked, key=lambda row: row[:2])
    if quality <= 0:
        expected = ", ".join(entry.media_type for entry in candidates)
        raise NotAcceptable(f"Accept: expected one of {expected}; got {brief(accept, 200)}")
    return _with_header(best, _csv_header(accept) or csv_header)


def _with_header(entry: Format, csv_header: str) -> Format:
    return CSV_WITHOUT_HEADER if entry is CSV and csv_header == "absent" else entry


def _csv_header(accept: str) -> str:
    """Return what the item `text/csv` of `accept` says of a header; empty if it says nothing."""
    for item in _items(accept):
        name, parameters = _read_media_type(item)
        if name == CSV.media_type and "header" in parameters:
            return parameters["header"]
    return ""


def accepts_json(accept: str) -> bool:
    """Return whether an answer may be JSON. Raises HeadersTooLarge."""
    _check_length("Accept", accept)
    return not accept or _quality(_ranges(accept), JSON) > 0


def wants_msgpack(accept: str, content_type: str) -> bool:
    """Return whether to write an error as MessagePack.

    That is so if `accept` prefers MessagePack to JSON, or if `accept` names no wish and the body
    was MessagePack. A value that is too long says nothing.
    """
    if len(accept) > MAX_VALUE_CHARS or len(content_type) > MAX_VALUE_CHARS:
        return False
    try:
        return _wants_msgpack(accept, content_type)
    except HeadersTooLarge:  # too many items
        return False


def _wants_msgpack(accept: str, content_type: str) -> bool:
    if accept and accept != "*/*":
        ranges = _ranges(accept)
        return _quality(ranges, MSGPACK) > _quality(ranges, JSON)
    return format_named(media_type(content_type)[0]) is MSGPACK


def _ranges(accept: str) -> dict[str, float]:
    """Return media type, or range such as `text/*`, to its highest weight.

    Raises HeadersTooLarge.
    """
    found = _accepts.kept.get(accept)
    if found is None:
        found = _read_ranges(accept)
        _accepts.put(accept, found, _size_of(accept))
    return found


def _read_ranges(accept: str) -> dict[str, float]:
    ranges: dict[str, float] = {}
    parts = _items(accept)
    if len(parts) > MAX_RANGES:
        raise HeadersTooLarge(f"Accept: expected at most {MAX_RANGES} items; got {len(parts)}")
    for part in parts:
        name, parameters = _read_media_type(part)
        # the weight is the second argument, because max() then passes over NaN
        ranges[name] = max(ranges.get(name, 0.0), q_value(parameters.get("q", "1")))
    return ranges


def _items(accept: str) -> list[str]:
    """Return the items of `accept`; commas within quotes do not end an item."""
    items = [""]
    for piece in _LIST_PIECE.findall(accept):
        if piece == ",":
            items.append("")
        else:
            items[-1] += piece
    return [item for item in items if item]


def _quality(ranges: dict[str, float], entry: Format) -> float:
    # a format's own names count before any range, even where their weight is lower (RFC 9110)
    named = [ranges[name] for name in (entry.media_type, *entry.aliases) if name in ranges]
    return max(named) if named else _quality_of(ranges, entry.media_type)


def _quality_of(ranges: dict[str, float], name: str) -> float:
    for candidate in (name, f"{name.partition('/')[0]}/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0
