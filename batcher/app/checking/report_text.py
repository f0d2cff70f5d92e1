"""A report of `batcher check --model` as text for a terminal.

The text has up to four parts: a headline with the counts, the rows that the model ran on, the
numbered findings, and a table of times. A finding shows the part of the model, what was wrong, why
that matters and how to mend the model. For example:

    model digits/1: 1 breach
      run on 11 rows of sample.json, and 0 rows made from them
      1. breach: output 'y', batch size 7
         7 rows in, 1 rows out in output 'y'
         why: row i of an output is handed to whoever sent row i of the input ...
         mend: keep the first axis of every output as long as that of the inputs ...
      batch size          ms    ms a row
               1       0.412      0.4120
"""

from __future__ import annotations

from textwrap import indent, wrap

from batcher.app.checking.contract import LEVELS, Finding, Report, Timing

WIDTH_COLUMNS = 110
"""Columns of running text: most terminals have so many, and such lines are still easy to read."""


def report_text(report: Report) -> str:
    """Return `report` as lines of text, without a newline at the end."""
    parts = [f"model {report.title}: {_verdict(report)}"]
    if report.rows:
        parts.append(indent(_wrapped(f"run on {report.rows}"), "  "))
    parts += [_finding(number, finding) for number, finding in enumerate(report.findings, 1)]
    if report.timings:
        parts.append(_table(report.timings))
    return "\n".join(parts)


def _verdict(report: Report) -> str:
    """Return the counts of findings; a model without a breach keeps the contract."""
    counts = [(report.count(level), level) for level in LEVELS]
    text = ", ".join(
        f"{count} {level if count == 1 else _plural(level)}" for count, level in counts if count
    )
    if report.count("breach"):
        return text
    return f"keeps the contract ({text})" if text else "keeps the contract"


def _plural(level: str) -> str:
    return f"{level}es" if level == "breach" else f"{level}s"


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
    """Return `text` in lines of at most `WIDTH_COLUMNS`; its own line breaks are kept."""
    lines: list[str] = []
    for line in text.splitlines():
        # `wrap` returns no line at all for an empty one.
        lines += wrap(line, WIDTH_COLUMNS, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def _table(timings: tuple[Timing, ...]) -> str:
    rows = [f"{'batch size':>12}{'ms':>12}{'ms a row':>12}"]
    for timing in timings:
        ms = timing.seconds * 1e3
        rows.append(f"{timing.rows:>12}{ms:>12.3f}{ms / timing.rows:>12.4f}")
    return "\n".join(rows)
