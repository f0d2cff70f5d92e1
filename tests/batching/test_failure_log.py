"""What a model's failures leave in the log."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from batcher.batching.failure_log import LOG_INTERVAL_S, MAX_KINDS, FailureLog
from batcher.core.error_text import MAX_STACK_CHARS
from batcher.errors import ModelError
from batcher.models.device_errors import device_error


class Logged(list[str]):
    """What is logged while it is entered."""

    def __enter__(self) -> Logged:
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: LogEvent) -> None:
        self.append(formatEvent(event))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    with Logged() as texts:
        yield texts


def raised(error: BaseException) -> BaseException:
    """Return `error` with a stack."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_the_first_failure_is_told_with_its_traceback(logged: list[str]) -> None:
    FailureLog("m/1").write("2 rows of a batch failed", raised(ValueError("bad row")), 5.0)
    (text,) = logged
    place = rf"\({__file__}:\d+\)"
    assert re.match(rf"model m/1: 2 rows of a batch failed {place}\nTraceback", text)
    assert "in raised" in text
    assert text.endswith("ValueError: bad row\n")


def test_too_little_memory_is_told_with_the_line_that_asked_for_it(logged: list[str]) -> None:
    FailureLog("m/1").write("a batch failed", device_error(raised(MemoryError("full"))), 5.0)
    (text,) = logged
    assert re.match(rf"model m/1: a batch failed \({__file__}:\d+\)\n.*MemoryError: full", text)


class Long(Exception):
    """Says more than anybody reads."""

    def __str__(self) -> str:
        return "long" * 1_000_000


class Unprintable(Exception):
    """Gives up."""

    def __str__(self) -> str:
        raise SystemExit(3)


def test_a_long_message_fills_no_log_with_its_cause_or_without(logged: list[str]) -> None:
    error = raised(Long())
    error.__cause__ = raised(Long())
    FailureLog("m/1").write("a batch failed", error, 0.0)
    (text,) = logged
    assert len(text) < MAX_STACK_CHARS + 100
    assert "characters left out" in text


def test_an_exception_that_cannot_be_written_is_logged_as_that(logged: list[str]) -> None:
    FailureLog("m/1").write("a batch failed", raised(Unprintable()), 0.0)
    assert "in raised" in logged[0]


def test_those_that_follow_are_left_out_and_counted_when_the_next_is_told(
    logged: list[str],
) -> None:
    log = FailureLog("m/1")
    for now in (
        0.0,
        1.0,
        LOG_INTERVAL_S - 0.1,
        LOG_INTERVAL_S,
        LOG_INTERVAL_S + 1,
        3 * LOG_INTERVAL_S,
        5 * LOG_INTERVAL_S,
    ):
        log.write("a batch failed", ValueError(now), now)
    assert [text.splitlines()[0].removeprefix("model m/1: a batch failed") for text in logged] == [
        "",
        " (2 more like it were not logged since the last)",
        " (1 more like it were not logged since the last)",
        "",
    ]


def test_each_kind_of_error_is_told(logged: list[str]) -> None:
    log = FailureLog("m/1")
    for error in (ValueError(), KeyError(), ValueError(), KeyError()):
        log.write("a batch failed", error, 0.0)
    assert len(logged) == 2


def raised_in_line(line: int, error: BaseException) -> BaseException:
    """Return `error` raised in a line of a file of the model's author."""
    try:
        exec(compile("\n" * (line - 1) + "raise error", "/models/m/1/model.py", "exec"))
    except BaseException as caught:
        return caught
    raise AssertionError


def test_an_error_of_the_same_class_in_another_line_is_told(logged: list[str]) -> None:
    log = FailureLog("m/1")
    for line in (3, 7, 3, 7):
        log.write("predict failed", raised_in_line(line, ValueError()), 0.0)
    assert [text.splitlines()[0] for text in logged] == [
        "model m/1: predict failed (/models/m/1/model.py:3)",
        "model m/1: predict failed (/models/m/1/model.py:7)",
    ]


def test_errors_of_hooks_are_told_apart_by_what_the_hooks_raised(logged: list[str]) -> None:
    log = FailureLog("m/1")
    for cause in (KeyError(), TypeError(), KeyError()):
        wrapped = ModelError("the model failed")
        wrapped.__cause__ = cause
        log.write("preprocess failed", wrapped, 0.0)
    assert len(logged) == 2


def test_two_models_are_told_apart(logged: list[str]) -> None:
    for model in ("m/1", "m/2"):
        FailureLog(model).write("a batch failed", ValueError(), 0.0)
    assert len(logged) == 2


@given(st.lists(st.integers(0, 3 * MAX_KINDS), max_size=300))
def test_a_model_that_makes_up_classes_fills_no_log(kinds: list[int]) -> None:
    log = FailureLog("m/1")
    with Logged() as logged:
        for step, kind in enumerate(kinds):
            log.write(
                "a batch failed",
                type(f"Error{kind}", (Exception,), {})(),
                step * LOG_INTERVAL_S / 300,
            )
    assert len(logged) <= min(len(set(kinds)), MAX_KINDS + 1)
