"""A report of `batcher check --model` as text for a terminal.

Findings, each with reason and remedy, and the times.
"""

from __future__ import annotations

from textwrap import indent, wrap

from batcher.app.checking.contract import LEVELS, Finding, Report, Timing

WIDTH = 110
"""Columns of running text: what most terminals have, and short enough to be read."""


def report_text(report: Report) -> str:
    """Return `report` as lines of text."""
    found = [_finding(number, finding) for number, finding in enumerate(report.findings, 1)]
    head = f"model {report.title}: {_counted(report)}"
    rows = [indent(_wrapped(f"run on {report.rows}"), "  ")] if report.rows else []
    return "\n".join([head, *rows, *found, *([_table(report.timings)] if report.timings else [])])


def _counted(report: Report) -> str:
    counts = [(report.count(level), level) for level in LEVELS]
    told = ", ".join(
        f"{count} {level}{_plural(level) * (count != 1)}" for count, level in counts if count
    )
    return told if report.count("breach") else f"keeps the contract{f' ({told})' * bool(told)}"


def _plural(level: str) -> str:
    return "es" if level == "breach" else "s"


def _finding(number: int, finding: Finding) -> str:
    lines = [
        f"{number}. {finding.level}: {finding.where}",
        *(indent(_wrapped(text), "   ") for text in _body(finding)),
    ]
    return indent("\n".join(lines), "  ")


def _body(finding: Finding) -> list[str]:
    reasons = (("why", finding.rule.why), ("mend", finding.rule.mend))
    return [finding.message, *(f"{name}: {text}" for name, text in reasons if text)]


def _wrapped(text: str) -> str:
    lines = [
        wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.splitlines()
    ]
    return "\n".join(part for line in lines for part in line)


def _table(timings: tuple[Timing, ...]) -> str:
    rows = [
        f"{timing.rows:>10}{timing.seconds * 1e3:>12.3f}{timing.seconds * 1e3 / timing.rows:>12.4f}"
        for timing in timings
    ]
    return "\n".join(
        [f"{'batch size':>12}{'ms':>12}{'ms a row':>12}", *(f"  {row}" for row in rows)]
    )
