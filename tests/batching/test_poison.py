"""What failed alone twice is refused for a while, by its content and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.batching.part import Part
from batcher.batching.poison import MAX_REMEMBERED, MAX_REMEMBERED_BYTES, PoisonList
from batcher.core.spec import Array
from batcher.errors import KnownToFail

SECONDS = 60.0


def part(**inputs: Array) -> Part:
    return Part(inputs, 1, sum(array.nbytes for array in inputs.values()), (), 1, 0.0, 1e9)


def numbers(value: float = 1.0, dtype: str = "f4", shape: tuple[int, ...] = (1, 4)) -> Array:
    return np.full(shape, value, dtype)


def refused(poison: PoisonList, part: Part, now: float = 0.0) -> bool:
    try:
        poison.check(part.inputs, part.nbytes, now)
    except KnownToFail:
        return True
    return False


def known(seconds: float = SECONDS, **inputs: Array) -> PoisonList:
    """Return what saw `inputs` fail twice at the time 0."""
    poison = PoisonList(seconds)
    for _ in range(2):
        poison.note_failure(part(**inputs), 0.0)
    return poison


def test_once_may_be_chance_twice_is_not() -> None:
    poison = PoisonList(SECONDS)
    poison.note_failure(part(x=numbers()), 0.0)
    assert not refused(poison, part(x=numbers()))
    poison.note_failure(part(x=numbers()), 1.0)
    with pytest.raises(KnownToFail, match="failed alone 2 times; they are refused for 59 s more"):
        poison.check({"x": numbers()}, 16, 2.0)


def test_it_is_forgotten_after_its_time_and_starts_anew() -> None:
    poison = known(x=numbers())
    assert refused(poison, part(x=numbers()), SECONDS - 1)
    assert not refused(poison, part(x=numbers()), SECONDS)
    poison.note_failure(part(x=numbers()), SECONDS + 1)
    assert not refused(poison, part(x=numbers()), SECONDS + 1)


def test_two_failures_far_apart_are_two_chances() -> None:
    poison = PoisonList(SECONDS)
    poison.note_failure(part(x=numbers()), 0.0)
    poison.note_failure(part(x=numbers()), SECONDS + 1)
    assert not refused(poison, part(x=numbers()), SECONDS + 1)


@pytest.mark.parametrize(
    "other",
    [
        {"x": numbers(2.0)},
        {"x": numbers(shape=(2, 2))},
        {"x": numbers().view("i4")},
        {"z": numbers()},
        {"x": numbers(), "y": numbers()},
    ],
    ids=["value", "shape", "dtype", "name", "one more"],
)
def test_nothing_else_is_refused(other: dict[str, Array]) -> None:
    assert not refused(known(x=numbers()), part(**other))


def test_texts_are_told_apart_by_where_they_end() -> None:
    poison = known(x=np.array([b"ab", b"c"], object))
    assert refused(poison, part(x=np.array([b"ab", b"c"], object)))
    assert not refused(poison, part(x=np.array([b"a", b"bc"], object)))


def test_nothing_is_remembered_unless_it_is_asked_for() -> None:
    assert not refused(known(0.0, x=numbers()), part(x=numbers()))


def test_what_is_large_is_not_read() -> None:
    large = numbers(shape=(1, MAX_REMEMBERED_BYTES // 4 + 1))
    assert not refused(known(x=large), part(x=large))


def test_the_one_that_failed_longest_ago_is_forgotten_first() -> None:
    poison = known(x=numbers(-1.0))
    for value in range(MAX_REMEMBERED - 1):
        poison.note_failure(part(x=numbers(value)), 1.0)
    assert refused(poison, part(x=numbers(-1.0)))
    poison.note_failure(part(x=numbers(MAX_REMEMBERED)), 1.0)
    assert not refused(poison, part(x=numbers(-1.0)))
    poison.note_failure(part(x=numbers(0.0)), 1.0)
    assert refused(poison, part(x=numbers(0.0)), 1.0)
