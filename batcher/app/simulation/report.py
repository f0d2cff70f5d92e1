"""Results as a table, as JSON, and as charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import isnan
from typing import Any

from batcher.app.charts import line_chart
from batcher.app.simulation.result import Result

Lines = dict[str, list[tuple[float, float]]]
"""Points by the names of lines."""

CUT_FACTOR = 5.0
"""Times the best policy's highest point at which charts of latency end: a policy that has lost
stability would press all others onto the axis.
"""


def table(results: Sequence[Result], has_deadlines: bool) -> str:
    """Return one line for each of `results`, loads one after the other."""
    lines = [_cells(result, has_deadlines) for result in results]
    head = list(lines[0]) if lines else []
    widths = [max(len(name), *(len(line[name]) for line in lines)) for name in head]
    rows = [head, *([line[name] for name in head] for line in lines)]
    texts = [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for place in range(len(results) - 1, 0, -1):
        if results[place].load != results[place - 1].load:
            texts.insert(place + 1, "")
    return "\n".join(texts)


def _cells(result: Result, has_deadlines: bool) -> dict[str, str]:
    mean, _, p99, _ = result.latency
    cells = {"load": result.load, "policy": result.policy}
    if has_deadlines:
        cells["drop"] = result.drop
    cells |= {"offered/s": f"{result.offered:.0f}", "answered/s": f"{result.answered:.0f}"}
    if has_deadlines:
        cells["in time"] = f"{result.goodput / result.capacity:.1%}"
    return cells | {
        "mean ms": _milliseconds(mean),
        "p99 ms": _milliseconds(p99),
        "rows/batch": f"{result.mean_batch:.1f}",
        **({} if isnan(result.padding) else {"padding": f"{result.padding:.2f}"}),
        "busy": f"{result.busy:.0%}",
        "lost": f"{result.refused + result.dropped:.1%}",
    }


def _milliseconds(seconds: float) -> str:
    return "-" if isnan(seconds) else f"{seconds * 1e3:.2f}"


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return `results` as values that JSON has, with null for what is not there."""
    return [_without_nan(asdict(result)) for result in results]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _without_nan(value._asdict())
    return None if isinstance(value, float) and isnan(value) else value


def charts(results: Sequence[Result], has_deadlines: bool) -> dict[str, str]:
    """Return SVGs by the names of their files, for each kind of load that has several values.

    A kind is what stands before the number in the text of a load: `poisson`, `closed`.
    """
    kinds: dict[str, list[tuple[float, Result]]] = {}
    for result in results:
        found = re.fullmatch(r"(\w+):([\d.]+)(.*)", result.load)
        if found:
            kind = f"{found[1]}{found[3]}"
            kinds.setdefault(kind, []).append((float(found[2]), result))
    files: dict[str, str] = {}
    for kind, points in kinds.items():
        if len({x for x, _ in points}) > 1:
            files |= _charts_of_kind(kind, points, has_deadlines)
    return files


def _charts_of_kind(
    kind: str, points: list[tuple[float, Result]], has_deadlines: bool
) -> dict[str, str]:
    name = re.sub(r"\W+", "-", kind).strip("-")
    across = "clients" if kind.startswith("closed") else "offered load, as a share of capacity"
    if "/s" in kind:
        across = "offered requests/s"
    points = sorted(points, key=lambda point: point[0])
    in_time = "answers in time" if has_deadlines else "answers"
    return {
        f"{name}-{file}.svg": _chart(kind, across, upward, _lines(points, value, has_deadlines))
        for file, upward, value in (
            ("mean", "mean latency in ms", lambda result: result.latency.mean * 1e3),
            ("p99", "p99 of latency in ms", lambda result: result.latency.p99 * 1e3),
            (
                "answers",
                f"{in_time}, as a share of capacity",
                lambda result: result.goodput / result.capacity,
            ),
        )
    }


def _lines(
    points: list[tuple[float, Result]], value: Callable[[Result], float], has_deadlines: bool
) -> Lines:
    lines: Lines = {}
    for x, result in points:
        policy = f"{_name(result.policy)}, {result.drop}" if has_deadlines else _name(result.policy)
        if not isnan(value(result)):
            lines.setdefault(policy, []).append((x, value(result)))
    return lines


def _chart(kind: str, across: str, upward: str, lines: Lines) -> str:
    top = max((y for points in lines.values() for _, y in points), default=1.0)
    if upward.endswith(" ms") and lines:
        top = min(top, CUT_FACTOR * min(max(y for _, y in points) for points in lines.values()))
    shown = {name: [(x, y) for x, y in points if y <= top] for name, points in lines.items()}
    return line_chart(f"{kind}: {upward}", across, upward, shown, top=top)


def _name(policy: str) -> str:
    """Return the name of a policy without the value that was found best at one load."""
    return policy.partition("=")[0] if policy.startswith("best-") else policy
