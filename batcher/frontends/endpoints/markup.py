"""What the pages for people share: their frame, tables, and charts.

A page is plain HTML that loads nothing from elsewhere and needs no script. Whoever makes a page
escapes what comes from outside; the functions here take markup, but for titles, which are text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from twisted.internet.defer import Deferred, succeed

from batcher import __version__
from batcher.frontends.endpoints.call import Reply

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
    "padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;width:100%}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "code{background:#f3f3f3;padding:0 .2rem}"
    "svg{display:block;max-width:100%;height:auto;font-size:12px}"
    "@media(prefers-color-scheme:dark)"
    "{body{background:#181818;color:#ddd}td,th{border-color:#444}"
    "code{background:#2a2a2a}a{color:#8bf}}"
)

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 40
"""Pixels of a chart, and of its margins."""


def page(title: str, body: str, refresh_s: int = 0) -> Deferred[Reply]:
    """Return a page; a browser asks for it again after `refresh_s` seconds, 0 for never."""
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">{refresh}'
        f"<title>batcher: {escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"{body}<footer>batcher {__version__}</footer>"
    )
    return succeed(Reply(200, b"text/html; charset=utf-8", text.encode()))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table of cells that are markup."""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def paragraphs(texts: Iterable[str]) -> str:
    """Return each of `texts`, which are not markup, as a paragraph."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def chart(points: Sequence[tuple[float, float]], across: str, up: str) -> str:
    """Return a picture of a line through `points`, at least two, from zero on both axes.

    `across` and `up` name the axes; the colors are those of the page's text.
    """
    most_x, most_y = max(x for x, _ in points), max(y for _, y in points)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    scale_x, scale_y = (right - _LEFT) / most_x, (bottom - _TOP) / (most_y or 1.0)
    placed = [(_LEFT + x * scale_x, bottom - y * scale_y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in placed)
    labels = _labels(right, bottom, (f"{most_x:.4g}", across), (f"{most_y:.3g}", up))
    label = escape(f"{up} by {across}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{label}" '
        f'fill="currentColor"><g fill="none" stroke="currentColor">'
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" opacity=".5"/>'
        f'<polyline points="{line}" stroke-width="2"/></g>{dots}'
        f"{labels}</svg>"
    )


def _labels(right: int, bottom: int, across: tuple[str, str], up: tuple[str, str]) -> str:
    """Return the texts at the axes: for each its largest value and its name."""
    return (
        _label(_LEFT - 6, bottom, "end", "0")
        + _label(_LEFT - 6, _TOP + 8, "end", up[0])
        + _label(right, bottom + 16, "end", across[0])
        + _label((_LEFT + right) // 2, bottom + 30, "middle", across[1])
        + _label(_LEFT + 8, _TOP + 8, "start", up[1])
    )


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
