"""A tensor in one short text, such as `FP32[3,224,224]`: its datatype, and the shape of one row.

    FP32[784]          784 numbers a row
    FP32[3,h,w]        sizes that differ from request to request have a name, or are -1 or ?
    BYTES[1]           one text a row, in an array of one element
    INT64, INT64[]     one number a row

People write such texts in Python, on the command line and in `config.yaml`. What else `model.yaml`
may say of a tensor is said by a mapping: `{"dtype": "FP32", "shape": [1, 8, 8], "image": {…}}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batcher.core.spec import DATATYPES, datatype

_TENSOR = re.compile(r"([A-Za-z]\w*)\s*(?:\[([^\[\]]*)\]|\(([^()]*)\))?")
"""A text without blanks around it."""
_NUMBER = re.compile(r"-?\d{1,9}")
_FREE = re.compile(r"[?*:]|\.\.\.|[A-Za-z_]\w*")
EXPECTED = "a datatype and the shape of one row, such as FP32[3,224,224] or BYTES[1]"


def is_tensor_text(text: str) -> bool:
    """Return whether `text` is meant for a tensor: it begins with the name of a datatype."""
    found = _TENSOR.fullmatch(text.strip())
    return found is not None and (found[1].upper() in DATATYPES or _has_datatype(found[1]))


def tensor_values(name: str, declared: Any) -> dict[str, Any]:
    """Return what `model.yaml` would say of the tensor `name` that is `declared` so.

    Raises:
        ValueError: it is neither such a text nor a mapping; the message says what is expected.
    """
    if isinstance(declared, Mapping):
        return {"name": name, **declared}
    found = _TENSOR.fullmatch(declared.strip()) if isinstance(declared, str) else None
    if found is None:
        raise ValueError(f"{name}: expected {EXPECTED}; got {declared!r:.100}")
    if not _has_datatype(found[1]):
        raise ValueError(f"{name}: expected one of {', '.join(DATATYPES)}; got {found[1]!r}")
    sizes = (found[2] or found[3] or "").split(",")
    shape = [_size(size.strip(), name, declared) for size in sizes if size.strip()]
    return {"name": name, "dtype": datatype(found[1]).name, "shape": shape}


def _has_datatype(name: str) -> bool:
    try:
        datatype(name)
    except KeyError:
        return False
    return True


def _size(text: str, name: str, declared: str) -> int:
    if _NUMBER.fullmatch(text):
        return int(text)
    if _FREE.fullmatch(text):
        return -1
    raise ValueError(f"{name}: expected {EXPECTED}; got {declared!r:.100}")
