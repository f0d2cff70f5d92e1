"""What to write in the place of a JSON body that has neither `inputs` nor `instances`.

Most such bodies hold the right values without the member around the values:

    "a good day"           write {"inputs": ["a good day"]}
    {"text": ["a", "b"]}   write {"inputs": {"text": ["a", "b"]}}
    {"input": [1, 2]}      did you mean "inputs"?

The advice is only an example: what a body means is never guessed.
"""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice
from typing import Any

import orjson

from batcher.codecs.formats.long_lists import LongList
from batcher.core.spec import ModelSpec, TensorSpec

_LAYOUTS = ("inputs", "instances")

_MAX_KEYS = 16
"""Members that are compared with the right names: a client may send a hundred thousand."""

_MAX_BYTES = 60
"""Most bytes of the client's own value in an example: an error is one line."""


def advice(document: Any, spec: ModelSpec) -> str:
    """Return what to write in the place of `document`, to stand behind an error's text."""
    if isinstance(document, dict):
        return _of_members(document, spec)
    if len(spec.required) != 1:
        return f": write {_form(spec)}"
    return f': write {{"inputs": {_values(document, spec.required[0])}}}'


def _of_members(document: dict[str, Any], spec: ModelSpec) -> str:
    known = {tensor.name: tensor for tensor in spec.inputs}
    if document and document.keys() <= known.keys():
        members = ", ".join(
            f"{_text(name)}: {_values(value, known[name])}" for name, value in document.items()
        )
        return f': write {{"inputs": {{{members}}}}}'
    for key in islice(document, _MAX_KEYS):
        if close := get_close_matches(str(key)[:_MAX_BYTES], _LAYOUTS, n=1, cutoff=0.7):
            return f'; did you mean "{close[0]}"?'
    return f": write {_form(spec)}"


def _form(spec: ModelSpec) -> str:
    """Return a body of the model without its values."""
    members = ", ".join(f"{_text(tensor.name)}: […]" for tensor in spec.required)
    return f'{{"inputs": {{{members}}}}}'


def _values(value: Any, tensor: TensorSpec) -> str:
    """Return `value` as the rows of an input; one row becomes a list of that row."""
    depth, inner = 0, value
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    # of an input of one element a row, such as BYTES[1], a flat list may be the rows
    is_one_row = not depth or (depth == len(tensor.shape) and tensor.shape != (1,))
    return _text([value] if is_one_row and not isinstance(value, LongList) else value)


def _text(value: Any) -> str:
    """Return `value` as JSON; a list without its values if it is long or JSON cannot hold it."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "[…]"
    return text if len(text) <= _MAX_BYTES else "[…]"
