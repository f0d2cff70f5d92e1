"""What a person sees of a job."""

from __future__ import annotations

import pytest

from batcher.app.jobs.screen import ended_text, progress_text
from batcher.serving.jobs.journal import DONE, RUNNING
from batcher.serving.jobs.writing import Progress

BEGIN = Progress(0, 0, 0.0, RUNNING)


@pytest.mark.parametrize(
    ("progress", "before", "seconds", "text"),
    [
        (BEGIN, BEGIN, 9, "0%  0 rows"),
        (Progress(50, 0, 0.25, RUNNING), BEGIN, 0.5, "25%  50 rows"),
        (Progress(5000, 0, 0.25, RUNNING), BEGIN, 50, "25%  5,000 rows  100 rows/s  2:30 left"),
        (
            Progress(3000, 2, 0.3, RUNNING),
            Progress(1000, 0, 0.1, RUNNING),
            60,
            "30%  3,000 rows, 2 without an answer  33 rows/s  3:30 left",
        ),
        (Progress(10, 0, 0.001, RUNNING), BEGIN, 10, "0%  10 rows  1 rows/s  2:46:30 left"),
    ],
    ids=range(5),
)
def test_rate_and_time_left_are_of_this_run(
    progress: Progress, before: Progress, seconds: float, text: str
) -> None:
    assert progress_text(progress, before, seconds) == text


def test_the_last_line_says_how_a_job_has_ended() -> None:
    output = "out.csv"
    assert ended_text(Progress(7, 0, 1.0, DONE), output) == "7 rows in out.csv"
    assert ended_text(Progress(7, 2, 1.0, DONE), output) == (
        "completed with errors: 2 of 7 rows have no answer, see out.csv.errors.jsonl"
    )
    assert "stopped behind row 7: the same command goes on" in ended_text(
        Progress(7, 2, 0.5, RUNNING), output
    )
