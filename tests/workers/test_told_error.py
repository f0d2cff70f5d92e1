"""Exceptions between processes: they read alike at both ends."""

from __future__ import annotations

import pickle
from traceback import format_exception, format_exception_only

import pytest

from batcher.errors import (
    BatcherError,
    DeviceLost,
    InvalidInput,
    MethodNotAllowed,
    ModelContractError,
    OutOfMemory,
    QueueFull,
    WorkerLost,
)
from batcher.pending import model_error
from batcher.workers.told_error import remake, tell


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Refined(QueueFull):
    """A model's own class, which the parent does not know."""


def crossed(error: BaseException) -> BaseException:
    """Raise `error`, and return it as it arrives in another process."""
    try:
        raise error
    except BaseException as raised:
        return remake(pickle.loads(pickle.dumps(tell(raised))))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("text"),
        KeyError("key"),
        SystemExit(3),
        KeyboardInterrupt(),
        OSError(2, "gone"),
        Unprintable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_client_is_told_is_the_same(error: BaseException) -> None:
    assert model_error(crossed(error)).args == model_error(error).args


def test_notes_cross() -> None:
    error = ValueError("text")
    error.add_note("and more")
    assert format_exception_only(crossed(error)) == ["ValueError: text\n", "and more\n"]


def test_notes_that_are_none_do_not_cost_the_process_that_tells_them_its_life() -> None:
    error = ValueError("text")
    error.__notes__ = 5  # type: ignore[assignment]  # as a model's own class may have it
    assert type(crossed(error)).__name__ == "ValueError"


def test_the_stack_of_the_other_process_is_shown() -> None:
    shown = "".join(format_exception(crossed(ValueError("text"))))
    assert "in crossed" in shown
    assert shown.endswith("ValueError: text\n")


@pytest.mark.parametrize("kind", [ModelContractError, OutOfMemory, DeviceLost, InvalidInput])
def test_the_server_s_own_errors_are_made_again_as_what_they_were(kind: type[BatcherError]) -> None:
    error = crossed(kind("text"))
    assert type(error) is kind
    assert str(error) == "text"


def test_what_the_server_s_own_errors_keep_crosses() -> None:
    full, lost, wrong = (
        crossed(QueueFull("full", 7)),
        crossed(WorkerLost("lost", True)),
        crossed(MethodNotAllowed("no", ("GET",))),
    )
    assert isinstance(full, QueueFull)
    assert full.retry_after == 7
    assert isinstance(lost, WorkerLost)
    assert lost.begun
    assert isinstance(wrong, MethodNotAllowed)
    assert wrong.allowed == ("GET",)


def test_a_model_s_own_refinement_of_one_is_its_nearest_base_and_whole() -> None:
    error = crossed(Refined("full", 7))
    assert type(error) is QueueFull
    assert error.retry_after == 7
