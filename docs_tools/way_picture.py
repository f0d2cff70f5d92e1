#!/usr/bin/env python3
"""The picture of docs/architecture.md: the way of a request through the rooms and the threads.

python docs_tools/way_picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from batcher.app.charts import Theme, svg, text_at
from benchmarks.peers_chart import PICTURES, THEMES

HEIGHT = 330


class Box(NamedTuple):
    """A place on the way; all numbers are pixels."""

    x: int
    y: int
    width: int
    title: str
    work: str
    height: int = 46

    @property
    def middle(self) -> int:
        """Where arrows meet the sides."""
        return self.y + self.height // 2

    @property
    def right(self) -> int:
        """The right side."""
        return self.x + self.width


CLIENT = Box(8, 110, 60, "client", "")
WEB = Box(104, 60, 132, "frontends/web", "bytes to requests")
GRPC = Box(104, 160, 132, "frontends/grpc", "messages to requests")
ENDPOINT = Box(262, 60, 132, "frontends/endpoints", "route, decode, encode")
STAGES = Box(262, 160, 132, "serving/stages", "quotas, hooks")
SCHEDULER = Box(420, 110, 128, "batching", "queue, policy, scheduler")
WORKER = Box(596, 110, 114, "workers", "collate, predict, split")
HEAVY = Box(262, 264, 132, "heavy work", "pictures, hooks")
BOXES = (CLIENT, WEB, GRPC, ENDPOINT, STAGES, SCHEDULER, WORKER, HEAVY)
THREADS = (
    Box(92, 34, 470, "reactor thread", "", 190),
    Box(586, 84, 132, "inference thread", "", 96),
    Box(252, 240, 152, "CPU pool", "", 82),
)
WAY_IN = ((CLIENT, WEB), (CLIENT, GRPC), (WEB, ENDPOINT), (GRPC, STAGES), (STAGES, SCHEDULER))


def picture(theme: Theme) -> str:
    """Return the picture."""
    parts = [
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{theme.ink}"/></marker>'
    ]
    for box in THREADS:
        parts += [_frame(box, theme.rule, "none"), _label(box, theme)]
    for box in BOXES:
        parts += [_frame(box, theme.bars[0], theme.paper), *_words(box, theme)]
    for start, end in WAY_IN:
        parts.append(_arrow(start.right, start.middle, end.x, end.middle, theme))
    down = ENDPOINT.x + ENDPOINT.width // 2
    parts += [
        _arrow(down, ENDPOINT.y + 46, down, STAGES.y, theme),
        _arrow(down, STAGES.y + 46, down, HEAVY.y, theme, both=True),
        _arrow(SCHEDULER.right, SCHEDULER.middle - 9, WORKER.x, WORKER.middle - 9, theme, 3),
        _arrow(WORKER.x, WORKER.middle + 9, SCHEDULER.right, SCHEDULER.middle + 9, theme, 3),
        _arrow(SCHEDULER.x + 20, SCHEDULER.y, ENDPOINT.right, ENDPOINT.middle, theme, dotted=True),
        text_at(508, 98, "1: do(batch)", "middle", colour=theme.ink),
        text_at(500, 176, "2: call_from_thread", "middle", colour=theme.ink),
    ]
    return svg(HEIGHT, theme.paper, parts)


def _frame(box: Box, colour: str, fill: str) -> str:
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="4" '
        f'fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
    )


def _label(box: Box, theme: Theme) -> str:
    return text_at(box.x + 6, box.y + 15, box.title, size=11, colour=theme.ink)


def _words(box: Box, theme: Theme) -> list[str]:
    x, first = box.x + box.width / 2, box.middle - 3 if box.work else box.middle + 4
    title = text_at(x, first, box.title, "middle", colour=theme.ink)
    if not box.work:
        return [title]
    return [title, text_at(x, first + 16, box.work, "middle", size=10, colour=theme.ink)]


def _arrow(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    theme: Theme,
    width: float = 1.5,
    dotted: bool = False,
    both: bool = False,
) -> str:
    dashes = ' stroke-dasharray="3 3"' if dotted else ""
    start = ' marker-start="url(#tip)"' if both else ""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{theme.ink}" '
        f'stroke-width="{width}"{dashes}{start} marker-end="url(#tip)"/>'
    )


def pictures() -> dict[str, str]:
    """Return the pictures by the names of their files."""
    return {f"way_{name}.svg": picture(theme) for name, theme in THEMES.items()}


if __name__ == "__main__":
    for name, drawing in pictures().items():
        (PICTURES / name).write_text(drawing)
        print(name)
