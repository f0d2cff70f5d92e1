"""Lines of JSON that are lists of numbers, for a model of one input: straight into an array.

To look at each number's type, join the lists and hand them to numpy takes as long as to read the
text twice. `struct` takes the numbers of a list where they are, and refuses texts, lists, `null`
and another length than the row's. Only booleans are numbers for it: those stand in the text as
`true` and `false`.

Whatever it refuses is decoded as any other line, which also says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from batcher.core.spec import Array, ModelSpec

_CODES = {"FP32": "f", "FP64": "d"}


class NumberLines:
    """Makes an array of rows that are lists of numbers."""

    def __init__(self, spec: ModelSpec) -> None:
        """Prepare for the input of `spec`; for a model of other inputs every row is refused."""
        self._name, self._row, self._dtype = "", struct.Struct(""), "f"
        tensor = spec.inputs[0]
        size = tensor.shape[0] if len(tensor.shape) == 1 else -1
        code = _CODES.get(tensor.datatype.name)
        if len(spec.inputs) == 1 and size > 0 and code is not None:
            self._name, self._row, self._dtype = tensor.name, struct.Struct(f"{size}{code}"), code

    def inputs(self, rows: Sequence[tuple[bytes, Any]]) -> dict[str, Array] | None:
        """Return the inputs in `rows`, each a text and its value; None if one is refused."""
        if not self._row.size:
            return None
        array = np.empty((len(rows), self._row.size // np.dtype(self._dtype).itemsize), self._dtype)
        start = 0
        try:
            for text, value in rows:
                numbers = self._numbers(value)
                if numbers is None or _may_have_booleans(text):
                    return None
                self._row.pack_into(array.data, start, *numbers)
                start += self._row.size
        except (struct.error, OverflowError):
            return None
        # No number of JSON is infinite: one that is was beyond the range of the datatype.
        return {self._name: array} if np.isfinite(array).all() else None

    def _numbers(self, value: Any) -> list[Any] | None:
        """Return the list in a line, which may stand by itself or under the input's name."""
        if type(value) is dict and len(value) == 1:
            value = value.get(self._name)
        return value if type(value) is list else None


def _may_have_booleans(text: bytes) -> bool:
    # The search for one byte is some ten times faster than that for a word.
    return (b"u" in text and b"true" in text) or (b"s" in text and b"false" in text)
