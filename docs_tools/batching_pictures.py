#!/usr/bin/env python3
"""The pictures of docs/batching.md: when batches are sent, and which requests are in them.

    python docs_tools/batching_pictures.py

Each picture follows the same requests through three ways to decide. A batch of b rows takes 4 ms
and 0.5 ms for each row. The figures in the pictures are worked out here, not drawn by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from batcher.app.charts import Theme, rule, svg, text_at
from benchmarks.peers_chart import PICTURES, THEMES

FIXED_MS, ROW_MS = 4.0, 0.5
MAX_ROWS = 8
TIMER_MS = 5.0
"""How long the timer waits for a full batch: what other servers wait by default."""

LEFT, PIXELS_A_MS, LANE, TOP = 150, 12, 64, 46
SHOWN_MS = 44


class Batch(NamedTuple):
    """A batch: when it began, in ms, and when each of its requests had come."""

    start: float
    arrivals: tuple[float, ...]

    @property
    def end(self) -> float:
        """When its answers leave."""
        return self.start + FIXED_MS + ROW_MS * len(self.arrivals)


Decide = Callable[[Sequence[float], float], tuple[float, int]]
"""From the requests that wait or will come, and when the model is free: start, and rows."""


def one_by_one(waiting: Sequence[float], free: float) -> tuple[float, int]:
    """Send one request at a time, as a server without batching."""
    return max(waiting[0], free), 1


def eager(waiting: Sequence[float], free: float) -> tuple[float, int]:
    """Send what is there as soon as the model is free."""
    start = max(waiting[0], free)
    return start, min(MAX_ROWS, sum(each <= start for each in waiting))


def timer(waiting: Sequence[float], free: float) -> tuple[float, int]:
    """Wait for a full batch, at most `TIMER_MS` after the model could take the first request."""
    first = max(waiting[0], free)
    full = waiting[MAX_ROWS - 1] if len(waiting) >= MAX_ROWS else float("inf")
    start = max(first, min(first + TIMER_MS, full))
    return start, min(MAX_ROWS, sum(each <= start for each in waiting))


WAYS: dict[str, Decide] = {"one at a time": one_by_one, "eager": eager, "a timer of 5 ms": timer}
LOADS = {
    "few": ("One request every 11 ms", [1.0 + 11 * number for number in range(4)]),
    "many": ("One request every millisecond", [2.0 + number for number in range(24)]),
}


def batches(arrivals: Sequence[float], decide: Decide) -> list[Batch]:
    """Return the batches in which all requests are answered."""
    waiting, free, made = list(arrivals), 0.0, []
    while waiting:
        start, rows = decide(waiting, free)
        made.append(Batch(start, tuple(waiting[:rows])))
        waiting, free = waiting[rows:], made[-1].end
    return made


def mean_ms(made: Sequence[Batch]) -> float:
    """Return the mean time from a request's arrival to its answer."""
    times = [batch.end - arrival for batch in made for arrival in batch.arrivals]
    return sum(times) / len(times)


def picture(title: str, arrivals: Sequence[float], theme: Theme) -> str:
    """Return one picture: a lane for each way to decide."""
    height = TOP + LANE * len(WAYS) + 12
    parts = [text_at(14, 24, title, size=15, colour=theme.ink)]
    for lane, (name, decide) in enumerate(WAYS.items()):
        top = TOP + LANE * lane
        made = batches(arrivals, decide)
        parts += [
            text_at(14, top + 18, name, colour=theme.ink),
            text_at(14, top + 36, f"mean {mean_ms(made):.1f} ms", colour=theme.ink),
            rule(LEFT, top + 40, LEFT + SHOWN_MS * PIXELS_A_MS, top + 40, theme.rule),
        ]
        for arrival in arrivals:
            x = LEFT + arrival * PIXELS_A_MS
            parts.append(rule(x, top + 40, x, top + 48, theme.ink))
        for batch in made:
            if batch.end <= SHOWN_MS:
                parts += _box(batch, top, theme)
    return svg(height, theme.paper, parts)


def _box(batch: Batch, top: float, theme: Theme) -> list[str]:
    x, width = LEFT + batch.start * PIXELS_A_MS, (batch.end - batch.start) * PIXELS_A_MS
    colour = theme.bars[0]
    return [
        f'<rect x="{x:g}" y="{top + 8}" width="{width - 2:g}" height="30" fill="{colour}"/>',
        text_at(x + width / 2, top + 28, str(len(batch.arrivals)), "middle", colour=theme.paper),
    ]


def pictures() -> dict[str, str]:
    """Return the pictures by the names of their files."""
    return {
        f"batching_{load}_{name}.svg": picture(*LOADS[load], theme)
        for load in LOADS
        for name, theme in THEMES.items()
    }


if __name__ == "__main__":
    for name, drawing in pictures().items():
        (PICTURES / name).write_text(drawing)
        print(name)
