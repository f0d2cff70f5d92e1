"""What a tuning has found, as a text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from statistics import median

from batcher.app.tuning.choosing import Option, text_of
from batcher.app.tuning.curve import Curve
from batcher.app.tuning.reasons import milliseconds
from batcher.app.tuning.sending import Measured
from batcher.app.tuning.tuning import Tuning
from batcher.app.tuning.verdict import verdict
from batcher.config.editing import NewValue, lines_of

LATE_LAG_S = 5e-3
"""Seconds by which requests of an open loop may be sent late; beyond that a line says so."""


def report_text(found: Tuning, values: Mapping[str, NewValue]) -> str:
    """Return all that `found` shows; `values` are the best settings with their reasons."""
    blocks = [
        found.lengths,
        _curves(found),
        _ways(found),
        _costs(found),
        _verified(found),
        _conclusion(found, values),
    ]
    return "\n\n".join(block for block in blocks if block)


def _curves(found: Tuning) -> str:
    lines = []
    for setup in found.setups:
        words = f"model {found.subject.title}, {text_of(setup.changes)}"
        for elements, curve in (setup.by_elements or {0: setup.curve}).items():
            of_length = f", rows of {elements} elements" if elements else ""
            table = _table(_curve_rows(curve))
            lines += [f"{words}{of_length}", *table, f"  end: {curve.end}", ""]
    return "\n".join(lines[:-1])


def _ways(found: Tuning) -> str:
    """Return which ways to run the model were tried, and which were left out."""
    tried = "; ".join(text_of(setup.changes) for setup in found.setups)
    return "\n".join(
        [f"ways to run the model: {tried}", *(f"  left out: {each}" for each in found.left_out)]
    )


def _curve_rows(curve: Curve) -> list[list[str]]:
    return [
        ["rows of a batch", *(str(timing.rows) for timing in curve.timings)],
        ["ms", *(f"{timing.seconds * 1e3:.3g}" for timing in curve.timings)],
        ["ms a row", *(f"{timing.row_seconds * 1e3:.3g}" for timing in curve.timings)],
    ]


def _costs(found: Tuning) -> str:
    loop, client = found.costs
    shown = f"{loop * 1e6:.0f} us of the server's loop and " if loop else ""
    return (
        f"a request costs {shown}{client * 1e6:.0f} us of this command's client, beside the model"
    )


def _verified(found: Tuning) -> str:
    deadline = found.user.deadline
    within = f" within {milliseconds(deadline)}" if deadline is not None else ""
    head = ["", f"simulated{within}/s", "p99 ms", f"measured{within}/s", "p99 ms", "lost"]
    rows = [head]
    for option, rounds in zip(found.verified, found.rounds, strict=True):
        rows.append(_cells(option, rounds))
    title = f"{found.user.text}; medians of {len(found.rounds[0])} rounds of real load"
    lines = [title, *_table(rows)]
    for option, rounds in zip(found.verified[1:], found.rounds[1:], strict=True):
        words = verdict(found.rounds[0], rounds).words
        lines.append(f"  {text_of(option.changes)}: {words}")
    lag = max(each.lag for rounds in found.rounds for each in rounds)
    if lag > LATE_LAG_S:
        lines.append(
            f"  this command sent requests up to {milliseconds(lag)} late: the machine has not "
            "enough cores for the load and the server"
        )
    return "\n".join(lines)


def _cells(option: Option, rounds: Sequence[Measured]) -> list[str]:
    result = option.result
    return [
        text_of(option.changes),
        f"{result.goodput:.0f}",
        _milliseconds(result.latency.p99),
        f"{median(each.in_time for each in rounds):.0f}",
        _milliseconds(median(each.p99 for each in rounds)),
        f"{median(each.lost for each in rounds):.1%}",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}" if isfinite(seconds) and not isnan(seconds) else "-"


def _conclusion(found: Tuning, values: Mapping[str, NewValue]) -> str:
    if not values:
        return "the present settings stay: none was better by more than the noise"
    return "better by more than the noise; in config.yaml:\n\n" + lines_of(
        ("models", found.subject.found.name), values
    ).rstrip("\n")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
