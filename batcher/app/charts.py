"""Charts as SVG, written by hand: people look at results of benchmarks and of simulations.

Lines for measurements, bars for a comparison in two themes. Two kinds of charts are not worth a
plotting library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 150, 40, 50  # margins; the legend stands in the right one
# the colour-blind can tell them apart too
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TICKS = 5  # of the ordinate

Points = Sequence[tuple[float, float]]

# Of the bars: a group has a heading at its left, and the figure stands behind each bar.
BAR, GAP, BARS_LEFT, BARS_RIGHT, BARS_TOP = 16, 14, 130, 80, 64


class Theme(NamedTuple):
    """Colours of a chart."""

    paper: str
    ink: str
    rule: str
    bars: tuple[str, ...]
    """One for each name of the legend."""


def line_chart(
    title: str,
    across: str,
    upward: str,
    lines: Mapping[str, Points],
    top: float | None = None,
    ticks: Sequence[float] | None = None,
) -> str:
    """Return an SVG with one line for each of `lines`, both axes from 0.

    Args:
        title: above the chart.
        across: what the abscissa is.
        upward: what the ordinate is.
        lines: points by name, ascending.
        top: end of the ordinate; without, the highest point.
        ticks: of the abscissa; without, they are where there are points.
    """
    abscissae = ticks or sorted({x for points in lines.values() for x, _ in points})
    highest = top or max((y for points in lines.values() for _, y in points), default=0.0) or 1.0
    scale = _Scale(max(abscissae, default=0.0) or 1.0, highest)
    parts = [*_headings(title, across, upward), *_ticks(scale, abscissae, highest)]
    for number, (name, points) in enumerate(lines.items()):
        parts += _line(scale, number, name, points)
    return svg(HEIGHT, "#fff", parts, WIDTH + _legend_excess(lines))


def _legend_excess(lines: Mapping[str, Points]) -> int:
    """Return by how many pixels the names of `lines` are wider than the margin."""
    return max(48 + round(6.5 * max(map(len, lines), default=0)) - RIGHT, 0)


class _Scale:
    """From values to places in the picture, in pixels."""

    def __init__(self, right: float, top: float) -> None:
        self._right = right
        self._top = top

    def x(self, value: float) -> float:
        return round(LEFT + value / self._right * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self._top * (HEIGHT - TOP - BOTTOM), 1)


def _headings(title: str, across: str, upward: str) -> list[str]:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        text_at(middle, TOP - 16, title, "middle", size=15),
        text_at(middle, HEIGHT - 10, across, "middle"),
        f'<g transform="rotate(-90 16 {HEIGHT / 2})">',
        text_at(16, HEIGHT / 2, upward, "middle"),
        "</g>",
    ]


def _ticks(scale: _Scale, abscissae: Sequence[float], highest: float) -> list[str]:
    end = HEIGHT - BOTTOM
    parts = []
    for x in abscissae:
        parts += [
            rule(scale.x(x), end, scale.x(x), end + 5),
            text_at(scale.x(x), end + 18, f"{x:g}", "middle"),
        ]
    for y in (highest * tick / TICKS for tick in range(TICKS + 1)):
        parts += [
            rule(LEFT, scale.y(y), WIDTH - RIGHT, scale.y(y)),
            text_at(LEFT - 8, scale.y(y) + 4, f"{y:.3g}", "end"),
        ]
    return parts


def _line(scale: _Scale, number: int, name: str, points: Points) -> list[str]:
    colour, beside = COLOURS[number % len(COLOURS)], TOP + 12 + 20 * number
    places = [(scale.x(x), scale.y(y)) for x, y in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places),
        rule(WIDTH - RIGHT + 12, beside - 4, WIDTH - RIGHT + 34, beside - 4, colour, 2),
        text_at(WIDTH - RIGHT + 40, beside, name),
    ]


def rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#ccc", width: int = 1) -> str:
    """Return a straight line."""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'
    )


def text_at(
    x: float, y: float, text: str, anchor: str = "start", size: int = 12, colour: str = "#333"
) -> str:
    """Return a text that begins at `x`, or ends or has its middle there, as `anchor` says."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def bar_chart(
    title: str, names: Sequence[str], groups: Mapping[str, Mapping[str, float]], theme: Theme
) -> str:
    """Return an SVG with one group of bars for each of `groups`, all from 0 at one scale.

    Args:
        title: above the chart.
        names: of the bars of a group, in their order; the legend.
        groups: from a group's heading to its values by name; a value may be missing.
        theme: colours.
    """
    group_height = len(names) * BAR + GAP
    height = BARS_TOP + len(groups) * group_height
    highest = max((value for values in groups.values() for value in values.values()), default=1.0)
    parts = [text_at(GAP, 24, title, size=15, colour=theme.ink), *_legend(names, theme)]
    for row, (heading, values) in enumerate(groups.items()):
        top = BARS_TOP + row * group_height
        middle = top + len(names) * BAR / 2 + 4
        parts.append(text_at(BARS_LEFT - 10, middle, heading, "end", colour=theme.ink))
        parts += _bars(names, values, top, highest, theme)
    end = height - GAP
    parts.append(rule(BARS_LEFT, BARS_TOP - 4, BARS_LEFT, end, theme.rule))
    return svg(height, theme.paper, parts)


def _legend(names: Sequence[str], theme: Theme) -> Iterator[str]:
    for number, name in enumerate(names):
        x = BARS_LEFT + 110 * number
        yield f'<rect x="{x}" y="38" width="12" height="12" fill="{theme.bars[number]}"/>'
        yield text_at(x + 18, 49, name, colour=theme.ink)


def _bars(
    names: Sequence[str], values: Mapping[str, float], top: float, highest: float, theme: Theme
) -> list[str]:
    parts = []
    for number, name in enumerate(names):
        if name in values:
            length = round(values[name] / highest * (WIDTH - BARS_LEFT - BARS_RIGHT), 1)
            y, colour = top + number * BAR, theme.bars[number]
            parts += [
                f'<rect x="{BARS_LEFT}" y="{y}" width="{length}" height="{BAR - 3}" '
                f'fill="{colour}"/>',
                text_at(BARS_LEFT + length + 6, y + 11, f"{values[name]:,}", colour=theme.ink),
            ]
    return parts


def svg(height: float, paper: str, parts: Sequence[str], width: float = WIDTH) -> str:
    """Return a whole picture of `width` pixels on paper of a colour."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="sans-serif">'
    )
    background = f'<rect width="{WIDTH}" height="{height:g}" fill="{paper}"/>'
    return "\n".join([opening, background, *parts, "</svg>", ""])
