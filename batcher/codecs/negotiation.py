"""Choosing a format by `Content-Type` for the body and by `Accept` for the answer.

Header values repeat from request to request, so what they mean is remembered by their text, in
bounded caches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import unquote

from batcher.codecs.format_table import JSON, MSGPACK, Format, format_named, formats_for
from batcher.core.spec import ModelSpec
from batcher.errors import NotAcceptable, UnsupportedMediaType

_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))')
_ESCAPED = re.compile(r"\\(.)")
_LIST_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
"""The last quote may be missing: if it had to be there, each opening one would be tried up to the
end of the header.
"""


@lru_cache(maxsize=1024)
def media_type(header: str) -> tuple[str, Mapping[str, str]]:
    """Return the media type in a `Content-Type` value, in lower case, and its parameters.

    What is no parameter is left out.
    """
    name, _, rest = header.partition(";")
    parameters: dict[str, str] = {}
    for key, quoted, plain in _PARAMETER.findall(f";{rest}"):
        value = _ESCAPED.sub(r"\1", quoted) if quoted else plain
        if key.endswith("*"):  # RFC 2231: charset'language'percent-encoded
            value = unquote(value.rpartition("'")[2])
        parameters.setdefault(key.lower().rstrip("*"), value)
    return name.strip().lower(), MappingProxyType(parameters)


def request_format(header: str, spec: ModelSpec) -> Format:
    """Return the format that a body of the model `spec` is in.

    Raises:
        UnsupportedMediaType: the media type is missing, unknown, or cannot hold this model's
            inputs.
    """
    name, _ = media_type(header)
    found = format_named(name)
    if found is not None and found.carries(spec.inputs):
        return found
    expected = ", ".join(entry.media_type for entry in formats_for(spec.inputs))
    inputs = ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.inputs)
    why = f", which cannot carry {inputs}" if found is not None else ""
    raise UnsupportedMediaType(
        f"Content-Type: expected one of {expected}; got {repr(name) if name else 'none'}{why}"
    )


def answer_format(accept: str, came_as: Format, spec: ModelSpec) -> Format:
    """Return the format to answer in.

    The most wanted one of `accept`, by default the one that the body came in.

    Raises:
        NotAcceptable: none that the client accepts can carry this model's outputs.
    """
    able = formats_for(spec.outputs, answers=True)
    own = came_as if came_as in able else JSON
    if not accept or accept == "*/*":
        return own
    ranges = _ranges(accept)
    ranked = [(_quality(ranges, entry), entry is own, entry) for entry in able]
    quality, _, best = max(ranked, key=lambda row: row[:2])
    if quality <= 0:
        expected = ", ".join(entry.media_type for entry in able)
        raise NotAcceptable(f"Accept: expected one of {expected}; got {accept!r:.200}")
    return best


def accepts_json(accept: str) -> bool:
    """Whether an answer may be JSON."""
    return not accept or _quality(_ranges(accept), JSON) > 0


@lru_cache(maxsize=1024)
def wants_msgpack(accept: str, content_type: str) -> bool:
    """Whether an error is to be written as MessagePack.

    It was asked for, or the body was in it and nothing was asked for.
    """
    if accept and accept != "*/*":
        ranges = _ranges(accept)
        return _quality(ranges, MSGPACK) > _quality(ranges, JSON)
    return format_named(media_type(content_type)[0]) is MSGPACK


@lru_cache(maxsize=1024)
def _ranges(accept: str) -> dict[str, float]:
    ranges: dict[str, float] = {}
    for part in _LIST_ITEM.findall(accept):
        name, parameters = media_type(part)
        ranges[name] = max(_weight(parameters.get("q", "1")), ranges.get(name, 0.0))
    return ranges


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return min(max(weight, 0.0), 1.0) if weight == weight else 0.0


def _quality(ranges: dict[str, float], entry: Format) -> float:
    named = [ranges[name] for name in (entry.media_type, *entry.aliases) if name in ranges]
    return max(named) if named else _quality_of(ranges, entry.media_type)


def _quality_of(ranges: dict[str, float], name: str) -> float:
    for candidate in (name, f"{name.partition('/')[0]}/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0
