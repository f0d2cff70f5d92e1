"""The benchmark of new versions, without servers: which answers it counts as wrong."""

from __future__ import annotations

import pytest

from benchmarks.trials.changes import Meant
from benchmarks.trials.clients import Answered


def answered(number: int, sent: float, at: float, status: int = 200) -> Answered:
    return Answered(sent, at, "", status, number, "")


@pytest.fixture
def meant(monkeypatch: pytest.MonkeyPatch) -> Meant:
    """Return the account of version 2 that comes at 10, and takes the place of 1 until 12."""
    meant, now = Meant(1), iter((10.0, 12.0))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    meant.begin(2)
    meant.end(1)
    return meant


@pytest.mark.parametrize(
    ("number", "sent", "at"),
    [(1, 5.0, 5.1), (1, 11.9, 12.5), (2, 9.9, 10.1), (2, 11.0, 11.1), (2, 50.0, 50.1)],
)
def test_a_version_may_answer_while_it_is_meant(
    meant: Meant, number: int, sent: float, at: float
) -> None:
    assert meant.is_right(answered(number, sent, at))


@pytest.mark.parametrize(
    ("number", "sent", "at"), [(1, 12.1, 12.2), (2, 9.0, 9.9), (3, 11.0, 11.1), (-1, 11.0, 11.1)]
)
def test_any_other_version_is_wrong(meant: Meant, number: int, sent: float, at: float) -> None:
    assert not meant.is_right(answered(number, sent, at))
    assert meant.wrong([answered(number, sent, at), answered(number, sent, at, 503)]) == 1
