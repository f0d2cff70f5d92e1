"""What each worker of a model holds, and which of them takes the next batch."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.batch import Batch
from batcher.batching.places import Places
from tests.support.scheduling import part


def batch(rows: int = 1) -> Batch:
    return Batch([part(rows)])


def seconds(rows: int, group: object) -> float:
    return float(rows)


def test_the_worker_that_holds_least_takes_the_next_batch_the_first_of_several() -> None:
    places = Places(workers=3, depth=2)
    assert [places.put(batch(), 0.0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert (places.held, len(places), places.rows) == (2, 6, 6)


def test_what_comes_back_makes_its_own_worker_the_freest() -> None:
    places = Places(workers=2)
    first, second = batch(2), batch(3)
    places.put(first, 0.0)
    places.put(second, 0.0)
    assert places.remove(second, 1.0) == 0.0
    assert (places.held, places.rows, [*places]) == (0, 2, [first])
    assert places.put(batch(), 1.0) == 1


def test_a_batch_begins_when_the_one_before_it_on_its_worker_is_back() -> None:
    places = Places(workers=2)
    running, waiting, other = batch(), batch(), batch()
    for each, now in ((running, 1.0), (other, 2.0), (waiting, 3.0)):
        places.put(each, now)
    assert places.remove(other, 4.0) == 2.0
    assert places.remove(running, 5.0) == 1.0
    assert places.remove(waiting, 9.0) == 5.0
    places.put(other, 10.0)
    assert places.remove(other, 11.0) == 10.0, "its worker had been idle"


def test_what_is_left_is_that_of_the_first_worker_to_be_free() -> None:
    places = Places(workers=2)
    assert places.left(seconds, 0.0) == 0.0
    places.put(batch(4), 0.0)
    assert places.left(seconds, 1.0) == 0.0, "the other one is free"
    places.put(batch(2), 0.0)
    assert places.left(seconds, 1.0) == 1.0
    places.put(batch(8), 1.0)
    assert places.left(seconds, 1.0) == 1.0, "the first one has another batch to run"
    places.put(batch(8), 1.0)
    assert places.left(seconds, 1.0) == 9.0
    assert places.left(seconds, 5.0) == 8.0, "what is late counts for nothing, not for less"


def test_a_worker_that_does_not_live_takes_none_and_is_waited_for_by_none() -> None:
    places = Places(workers=2, depth=2)
    places.set_alive(0, False)
    assert (places.alive, places.held) == (1, 0)
    assert [places.put(batch(5), 0.0) for _ in range(2)] == [1, 1]
    assert places.held == 2, "that the dead one holds nothing makes no place"
    assert places.left(seconds, 0.0) == 10.0
    places.set_alive(1, False)
    assert (places.alive, places.held, places.left(seconds, 0.0)) == (0, 2, inf)
    places.set_alive(0, True)
    assert (places.alive, places.held, places.put(batch(), 0.0)) == (1, 0, 0)


def test_there_is_no_worker_for_a_batch_where_none_lives() -> None:
    places = Places()
    places.set_alive(0, False)
    with pytest.raises(RuntimeError, match="none is alive"):
        places.put(batch(), 0.0)


@given(
    st.integers(1, 4),
    st.integers(1, 2),
    st.lists(st.tuples(st.sampled_from(["put", "remove", "turn"]), st.integers(0, 9)), max_size=40),
)
def test_no_worker_ever_holds_more_than_its_places_and_none_idles_while_another_holds_two(
    workers: int, depth: int, steps: list[tuple[str, int]]
) -> None:
    places = Places(workers, depth)
    held: list[list[Batch]] = [[] for _ in range(workers)]
    alive = [True] * workers
    for now, (step, number) in enumerate(steps):
        holding = [index for index in range(workers) if held[index]]
        if step == "turn":
            index = number % workers
            alive[index] = not alive[index]
            places.set_alive(index, alive[index])
        elif step == "put" and places.held < depth:
            one = batch(1 + number)
            index = places.put(one, float(now))
            assert alive[index]
            assert len(held[index]) == min(
                len(held[other]) for other in range(workers) if alive[other]
            )
            held[index].append(one)
        elif step == "remove" and holding:
            places.remove(held[holding[number % len(holding)]].pop(0), float(now))
        places.check_invariants()
        assert [*places] == [one for each in held for one in each]
        assert len(places) == sum(map(len, held))
