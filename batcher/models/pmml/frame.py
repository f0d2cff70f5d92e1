"""The columns of a batch, by the names of their fields.

A column of numbers is an array of float64, with NaN for what is missing; a field of the type float
has float32, since what a file compares it with is rounded likewise. Booleans are the numbers 1 and
0. Any other column is an array of objects: texts, and None for what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.errors import ModelContractError

Derived = Callable[["Frame"], Array]
"""Works out a derived field."""

TYPES = ("", "string", "integer", "float", "double", "boolean")
"""Types of fields that are served; without one a field holds texts."""


class Frame:
    """Columns that are known, and those that follow from them.

    Attributes:
        rows: how many rows the columns have.
    """

    def __init__(
        self, columns: Mapping[str, Array], rows: int, derived: Mapping[str, Derived]
    ) -> None:
        """Hold `columns`; those that `derived` names are worked out when they are asked for."""
        self.rows = rows
        self._columns = dict(columns)
        self._derived = dict(derived)
        self._being_worked_out: set[str] = set()

    def __getitem__(self, name: str) -> Array:
        """Return a column.

        Raises:
            ModelContractError: there is none of that name, or it is worked out from itself.
        """
        if name not in self._columns:
            if name not in self._derived:
                raise ModelContractError(
                    f"expected fields that the file has; got {name!r}, which is neither an input "
                    "nor worked out"
                )
            if name in self._being_worked_out:
                raise ModelContractError(
                    f"expected fields that are worked out from others; got DerivedField {name!r}, "
                    "which needs itself"
                )
            self._being_worked_out.add(name)
            self._columns[name] = self._derived[name](self)
        return self._columns[name]

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a column."""
        return name in self._columns or name in self._derived

    def with_more(self, columns: Mapping[str, Array], derived: Mapping[str, Derived]) -> Frame:
        """Return a frame of these columns, and of more that go before them."""
        frame = Frame({**self._columns, **columns}, self.rows, {**self._derived, **derived})
        for name in derived:
            frame._columns.pop(name, None)
        return frame

    def of_rows(self, chosen: Array) -> Frame:
        """Return a frame of the `chosen` rows of the columns that are worked out."""
        columns = {name: column[chosen] for name, column in self._columns.items()}
        return Frame(columns, len(chosen), self._derived)


def is_missing(column: Array) -> Array:
    """Return which values of a column are missing."""
    if column.dtype.hasobject:
        return np.array([value is None for value in column], bool)
    return np.isnan(column)


def numbers(column: Array) -> Array:
    """Return a column as numbers of float64; a text that is none is missing."""
    if not column.dtype.hasobject:
        return column.astype(np.float64, copy=False)
    return np.array([number_of(value) for value in column], np.float64)


def number_of(value: str | None) -> float:
    """Return a text as a number, a truth as 1 or 0, and anything else as NaN."""
    try:
        return float("nan") if value is None else float(value)
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(value or "", float("nan"))


def texts(column: Array) -> Array:
    """Return a column as texts; a whole number has no point, as PMML writes it."""
    if column.dtype.hasobject:
        return column
    found = np.empty(len(column), object)
    found[:] = [None if value != value else text_of(value) for value in column.tolist()]
    return found


def text_of(value: float) -> str:
    """Return a number as PMML writes it."""
    return str(int(value)) if value.is_integer() else repr(value)  # infinity is none


def cast(column: Array, data_type: str) -> Array:
    """Return a column as a field of the type `data_type` holds it."""
    if data_type == "float":
        return numbers(column).astype(np.float32)
    if data_type == "integer":
        return np.trunc(numbers(column))
    if data_type in ("double", "boolean"):
        return numbers(column)
    return texts(column)


def equals(column: Array, text: str) -> Array:
    """Return which values of a column are the one that a file writes as `text`."""
    if column.dtype.hasobject:
        return np.array([value == text for value in column], bool)
    return np.asarray(column == number_of(text.strip()))


def in_interval(column: Array, interval: Element) -> Array:
    """Return which values lie in an interval."""
    low, high = interval.number("leftMargin", -inf), interval.number("rightMargin", inf)
    closure = interval.get("closure")
    left = column >= low if closure.startswith("closed") else column > low
    right = column <= high if closure in ("openClosed", "closedClosed") else column < high
    return np.asarray(left & right)


def full(rows: int, value: Any) -> Array:
    """Return a column of one value."""
    if isinstance(value, float | int):
        return np.full(rows, float(value))
    column = np.empty(rows, object)
    column.fill(value)
    return column
