"""From the words of the command line to values: times, numbers, lists, files of numbers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

from batcher.errors import ConfigError

UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


def duration(text: str) -> float:
    """Return the seconds that `text` says, such as 5ms.

    Raises:
        ConfigError: `text` is no time.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zµ]*)\s*", text)
    unit = found[2].replace("µ", "u") if found else ""
    if found is None or (unit not in UNITS_S and float(found[1])):
        raise ConfigError(f"expected a time such as 5ms, 250us or 1.5s; got {text!r}")
    return float(found[1]) * UNITS_S.get(unit, 0.0)


def duration_text(seconds: float) -> str:
    """Return `seconds` in the unit in which they are easily read."""
    unit = next((unit for unit in ("s", "ms") if seconds >= UNITS_S[unit]), "us")
    return f"{seconds / UNITS_S[unit]:.4g}{unit}"


def number(text: str, what: str) -> float:
    """Return the number, 0 or more, that `text` says; errors call it `what`.

    Raises:
        ConfigError: `text` is no such number.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not isfinite(value) or value < 0:
        raise ConfigError(f"{what}: expected a number of 0 or more; got {text!r}")
    return value


def split_pairs(text: str, error: str) -> list[tuple[str, str]]:
    """Return the pairs of `text`, such as a=b,c=d.

    Raises:
        ConfigError: `text` is no such list; its words are `error`.
    """
    pairs = [item.partition("=") for item in text.split(",")]
    if not all(key and equals and value for key, equals, value in pairs):
        raise ConfigError(error)
    return [(key.strip(), value.strip()) for key, _, value in pairs]


class Column(NamedTuple):
    """A number that lines of a file have.

    Attributes:
        name: name of the number.
        least: the least that it may be.
        is_whole: whether it counts something.
    """

    name: str
    least: float = -inf
    is_whole: bool = False

    def check(self, value: float, place: str) -> None:
        """Check a number of the line at `place`.

        Raises:
            ConfigError: the number is none of this column.
        """
        if value < self.least or (self.is_whole and value != int(value)):
            kind = "whole number" if self.is_whole else "number"
            raise ConfigError(
                f"{place}: {self.name}: expected a {kind} of {self.least:g} or more; got {value:g}"
            )


def numbers_of_file(
    path: Path, columns: Sequence[Column], required: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the numbers of each line of `path`, None for one that is not there.

    The file is CSV, with a first line of names or in the order of `columns`, or JSON lines: an
    object or a list on each. Columns and members of other names are passed over. Each line must
    have the first `required` of the `columns`.

    Raises:
        ConfigError: the file cannot be read, or a line has no such numbers.
    """
    names = [column.name for column in columns]
    header = names
    for index, (place, line) in enumerate(_lines(path)):
        fields = _fields(line, header, names)
        if fields is None and index == 0:
            header = [name.strip() for name in _cells(line)]
            if set(names[:required]) <= set(header):
                continue
        row = tuple((fields or {}).get(name) for name in names)
        if None in row[:required]:
            raise ConfigError(f"{path}:{place}: expected {', '.join(names)}; got {line[:80]!r}")
        _check(row, columns, f"{path}:{place}")
        yield row


def _check(row: tuple[Any, ...], columns: Sequence[Column], place: str) -> None:
    """Check the numbers of the line at `place`; raises ConfigError."""
    for column, value in zip(columns, row, strict=True):
        if value is not None:
            column.check(value, place)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not empty, each with its number."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [(place, line) for place, line in enumerate(lines, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}") from err


def _cells(line: str) -> list[str]:
    """Return the cells of a line of CSV; none of one that cannot be read."""
    try:
        return next(csv.reader([line], skipinitialspace=True))
    except csv.Error:
        return []


def _fields(line: str, header: Sequence[str], names: Sequence[str]) -> dict[str, float] | None:
    """Return the numbers of a line called `names`; None if one of them is no number."""
    try:
        if line.lstrip().startswith(("{", "[")):
            values = json.loads(line)
            pairs = (
                values.items() if isinstance(values, dict) else zip(header, values, strict=False)
            )
        else:
            pairs = zip(header, _cells(line), strict=False)
        wanted = [pair for pair in pairs if pair[0] in names and pair[1] not in (None, "")]
        if any(isinstance(value, bool) for _, value in wanted):
            return None
        fields = {name: float(value) for name, value in wanted}
    # RecursionError: lists within lists, more than the reader of JSON takes
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return fields if all(isfinite(value) for value in fields.values()) else None
