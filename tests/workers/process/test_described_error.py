"""Exceptions between processes: they read alike at both ends."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from enum import StrEnum
from traceback import format_exception, format_exception_only
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.error_text import MAX_MESSAGE_CHARS
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
from batcher.models.model_errors import model_error
from batcher.workers.process.described_error import describe_error, rebuild_error


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Code(StrEnum):
    """A model's own class, which only its process knows: here it cannot be pickled."""

    BAD = "bad"

    def __reduce_ex__(self, protocol: object) -> Any:
        raise pickle.PicklingError("only known here")


class Number(int):
    """The same as a number."""

    def __reduce_ex__(self, protocol: object) -> Any:
        raise pickle.PicklingError("only known here")


class Refined(QueueFull):
    """A model's own class, which the parent does not know."""


def crossed(error: BaseException) -> BaseException:
    """Raise `error`, and return it as it arrives in another process."""
    try:
        raise error
    except BaseException as raised:
        return rebuild_error(pickle.loads(pickle.dumps(describe_error(raised))))


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


def give_up(*_: object) -> Any:
    raise SystemExit(3)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(), st.lists
)
FOREIGN = st.sampled_from(
    [
        Code.BAD,
        Number(3),
        lambda: 1,
        object(),
        Code,
        (1, Code.BAD),
        [[Number(1)]],
        {"a": (give_up,)},
    ]
)
KEPT = st.dictionaries(st.text(max_size=5) | st.just("__notes__"), PLAIN | FOREIGN, max_size=4)
NAMES = st.sampled_from(["Plain", "a\0b", "\udc80", "", "x" * 10_000, Code.BAD])
SAYS: st.SearchStrategy[Callable[[object], Any]] = st.sampled_from(
    [lambda _: "text", lambda _: Code.BAD, lambda _: 5, give_up, lambda _: "long" * 10_000]
)


@given(
    base=st.sampled_from([Exception, SystemExit, InvalidInput, ModelContractError]),
    says=SAYS,
    name=NAMES,
    kept=KEPT,
)
def test_whatever_a_class_does_it_crosses(
    base: type[BaseException], says: Callable[[object], Any], name: str, kept: dict[str, Any]
) -> None:
    kind = type("Own", (base,), {"__str__": says, "__qualname__": name, "__module__": name})
    error = kind("text")
    vars(error).update(kept)
    found = crossed(error)
    assert type(found) is base or base in (Exception, SystemExit)
    assert type(str(found)) is str
    assert len(str(found)) <= MAX_MESSAGE_CHARS
    "".join(format_exception(found))


@pytest.mark.parametrize("asked", ["__dict__", "__notes__", "__class__"])
def test_a_class_that_gives_up_whatever_it_is_asked_for_crosses(asked: str) -> None:
    kind = type("Own", (InvalidInput,), {asked: property(give_up)})
    assert str(rebuild_error(pickle.loads(pickle.dumps(describe_error(kind("text")))))) == "text"


def test_a_class_that_claims_to_be_the_server_s_is_not_looked_for_there() -> None:
    kind = type("Own", (InvalidInput,), {"__module__": InvalidInput.__module__})
    assert type(crossed(kind("text"))) is InvalidInput


def test_of_what_a_model_s_own_error_keeps_what_every_process_knows_crosses() -> None:
    error = InvalidInput("text")
    kept = {
        "reason": "dark",
        "limits": (1, [2.0, None]),
        "code": Code.BAD,
        "more": (lambda: 1,),
        "count": Number(3),
    }
    vars(error).update(kept)
    found = vars(crossed(error))
    assert {name: found[name] for name in kept if name in found} == {
        "reason": "dark",
        "limits": (1, [2.0, None]),
    }


def test_how_much_crosses_is_bounded() -> None:
    error = InvalidInput("long" * 1_000_000)
    vars(error).update(
        {f"a{number}": "long" * 100 for number in range(1000)}, long="long" * 1_000_000
    )
    error.add_note("long" * 1_000_000)
    assert len(pickle.dumps(describe_error(error))) < 60_000
