"""A line chart as SVG, written by hand: people look at results in the repository.

One kind of chart is not worth a plotting library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 150, 40, 50  # margins; the legend stands in the right one
# the colour-blind can tell them apart too
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TICKS = 5  # of the ordinate

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str, across: str, upward: str, lines: Mapping[str, Points], top: float | None = None
) -> str:
    """Return an SVG with one line for each of `lines`, both axes from 0.

    Args:
        title: above the chart.
        across: what the abscissa is; its ticks are where there are points.
        upward: what the ordinate is.
        lines: points by name, ascending.
        top: end of the ordinate; without, the highest point.
    """
    abscissae = sorted({x for points in lines.values() for x, _ in points})
    highest = top or max((y for points in lines.values() for _, y in points), default=0.0) or 1.0
    scale = _Scale(max(abscissae, default=0.0) or 1.0, highest)
    middle, end = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
    parts = [
        _text(middle, TOP - 16, title, "middle", size=15),
        _text(middle, HEIGHT - 10, across, "middle"),
        f'<g transform="rotate(-90 16 {HEIGHT / 2})">{_text(16, HEIGHT / 2, upward, "middle")}</g>',
    ]
    for x in abscissae:
        parts += [
            _rule(scale.x(x), end, scale.x(x), end + 5),
            _text(scale.x(x), end + 18, f"{x:g}", "middle"),
        ]
    for y in (highest * tick / TICKS for tick in range(TICKS + 1)):
        parts += [
            _rule(LEFT, scale.y(y), WIDTH - RIGHT, scale.y(y)),
            _text(LEFT - 8, scale.y(y) + 4, f"{y:.3g}", "end"),
        ]
    for number, (name, points) in enumerate(lines.items()):
        parts += _line(scale, number, name, points)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif">'
    )
    return "\n".join(
        [opening, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *parts, "</svg>", ""]
    )


class _Scale:
    """From values to places in the picture, in pixels."""

    def __init__(self, right: float, top: float) -> None:
        self._right = right
        self._top = top

    def x(self, value: float) -> float:
        return round(LEFT + value / self._right * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self._top * (HEIGHT - TOP - BOTTOM), 1)


def _line(scale: _Scale, number: int, name: str, points: Points) -> list[str]:
    colour, beside = COLOURS[number % len(COLOURS)], TOP + 12 + 20 * number
    places = [(scale.x(x), scale.y(y)) for x, y in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places),
        _rule(WIDTH - RIGHT + 12, beside - 4, WIDTH - RIGHT + 34, beside - 4, colour, 2),
        _text(WIDTH - RIGHT + 40, beside, name),
    ]


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#ccc", width: int = 1) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="#333">{escape(text)}</text>'
    )
