"""The table of batch jobs on the page of models: what runs, how fast, and how long it will take."""

from __future__ import annotations

from html import escape
from typing import Any

from batcher.frontends.endpoints.jobs import Jobs
from batcher.frontends.endpoints.markup import table

MOST_SHOWN = 20
"""Jobs on the page, the newest; `GET /jobs` has all."""

_HEAD = ("batch job", "model", "state", "done", "rows", "without an answer", "rows/s", "left")


def job_table(jobs: Jobs | None) -> str:
    """Return the table as markup; nothing where there are no jobs."""
    shown = [] if jobs is None else jobs.list(MOST_SHOWN)
    return table(_HEAD, map(_row, shown)) if shown else ""


def _row(status: dict[str, Any]) -> tuple[str, ...]:
    left = status["seconds_left"]
    return (
        escape(status["id"]),
        escape(f"{status['model']}/{status['version']}"),
        escape(status["state"]),
        f"{status['done']:.0%}",
        f"{status['rows']:,}",
        f"{status['failed_rows']:,}",
        f"{status['rows_per_s']:,.0f}",
        "" if left is None else f"{left:,.0f} s",
    )
