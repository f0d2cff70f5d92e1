"""Figures: what a part measured, one line of JSON each, told as soon as it is known.

A part runs in a process of its own and prints its figures; `run.py` reads them and keeps them at
once. So a part that is ended by its time limit loses nothing of what it had measured.

In a dry run, on the processor, no figure of speed is judged: the sizes are not those of the day.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import orjson

DRY = bool(os.environ.get("GPU_DRY"))
"""Whether this is a dry run: everything on the processor, with small models and few rounds."""

DEVICE = "cpu" if DRY else "cuda"
SECONDS = 0.4 if DRY else 2.0
"""Seconds of one measurement."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        part: name of the part that measured.
        what: what was measured.
        value: the figure; text where it is none.
        unit: its unit.
        wanted: what the figure should be, in words; a dash if nothing is wanted of it.
        met: `yes` or `no`; a dash where nothing is wanted, or nothing is judged.
    """

    part: str
    what: str
    value: float | str
    unit: str = ""
    wanted: str = "-"
    met: str = "-"

    def row(self) -> dict[str, Any]:
        """Return the figure as a row of a table."""
        return asdict(self)


class Figures:
    """The figures of one part, printed one by one."""

    def __init__(self, part: str) -> None:
        """Tell figures of the part with this name."""
        self._part = part

    def add(
        self,
        what: str,
        value: float | str,
        unit: str = "",
        least: float | None = None,
        most: float | None = None,
    ) -> None:
        """Tell a figure; `least` and `most` bound what is wanted of it."""
        wanted, met = "-", "-"
        bound = least if most is None else most
        if bound is not None:
            wanted = f"at {'least' if most is None else 'most'} {bound:g}"
            if not DRY and isinstance(value, int | float):
                met = yes_or_no(value >= bound if most is None else value <= bound)
        if isinstance(value, float):
            value = float(f"{value:.4g}")
        self._print(Figure(self._part, what, value, unit, wanted, met))

    def check(self, what: str, holds: bool, found: str) -> None:
        """Tell whether something that must hold does, and what was found; judged on a dry run."""
        self._print(Figure(self._part, what, found, "", "yes", yes_or_no(holds)))

    def leave_out(self, what: str, reason: str) -> None:
        """Tell that something was not measured, and why."""
        self._print(Figure(self._part, what, f"left out: {reason}"))

    def _print(self, figure: Figure) -> None:
        print(orjson.dumps(figure.row()).decode(), flush=True)


def yes_or_no(holds: bool) -> str:
    """Return what the column `met` says."""
    return "yes" if holds else "no"
