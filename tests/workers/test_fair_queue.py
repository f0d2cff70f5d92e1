"""The fair queue: who is served next, who gets in, and what is left behind."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import QueueFull
from batcher.workers.fair_queue import FairQueue


def queue(max_items: int = 1024, max_bytes: int = 1 << 20) -> FairQueue[str]:
    return FairQueue("the queue", max_items, max_bytes)


def filled(waiting: FairQueue[str], client: str, count: int, nbytes: int = 1) -> None:
    for number in range(count):
        waiting.put(client, nbytes, f"{client}{number}")


def flood(waiting: FairQueue[str], client: str, nbytes: int = 1) -> int:
    """Put items of `client` until one is refused; return how many went in."""
    for number in range(10_000):
        try:
            waiting.put(client, nbytes, f"{client}{number}")
        except QueueFull:
            return number
    raise AssertionError("the queue has no bound")


def served(waiting: FairQueue[str], seconds: dict[str, float], total: float) -> Counter[str]:
    """Run items one after the other for `total` seconds; return the seconds of each client.

    An item takes as many `seconds` as the letter of its client says.
    """
    spent: Counter[str] = Counter()
    while spent.total() < total:
        item = waiting.take()
        assert item is not None
        waiting.done(item, seconds[item[0]])
        spent[item[0]] += seconds[item[0]]
    return spent


def test_the_items_of_one_client_are_taken_in_the_order_in_which_they_came() -> None:
    waiting = queue()
    filled(waiting, "a", 3)
    assert [waiting.take() for _ in range(4)] == ["a0", "a1", "a2", None]


def test_a_client_that_comes_behind_a_flood_is_next() -> None:
    waiting = queue()
    filled(waiting, "a", 500)
    first = waiting.take()
    waiting.put("b", 1, "b0")
    assert (first, waiting.take()) == ("a0", "b0")


def test_a_free_worker_goes_to_the_client_with_the_fewest_running_items() -> None:
    waiting = queue()
    filled(waiting, "a", 10)
    filled(waiting, "b", 10)
    assert sorted(waiting.take() or "" for _ in range(4)) == ["a0", "a1", "b0", "b1"]


def test_two_clients_get_the_same_time_though_the_items_of_one_are_fifty_times_as_long() -> None:
    waiting = queue()
    filled(waiting, "a", 100)
    filled(waiting, "b", 600)
    spent = served(waiting, {"a": 1.0, "b": 0.02}, 20.0)
    assert spent["a"] == pytest.approx(spent["b"], abs=1.0)


def test_a_client_that_comes_late_has_neither_saved_time_nor_does_it_owe_any() -> None:
    waiting = queue()
    filled(waiting, "a", 300)
    served(waiting, {"a": 1.0}, 100.0)
    filled(waiting, "b", 200)
    spent = served(waiting, {"a": 1.0, "b": 1.0}, 40.0)
    assert spent["a"] == pytest.approx(spent["b"], abs=2.0)


@pytest.mark.parametrize(("clients", "most"), [(1, 768), (2, 439), (3, 308)])
def test_each_client_may_hold_three_times_what_is_free(clients: int, most: int) -> None:
    waiting = queue(max_items=1024)
    names = "abc"[:clients]
    refused: set[str] = set()
    number = 0
    while len(refused) < clients:
        for name in names:
            try:
                waiting.put(name, 1, f"{name}{number}")
            except QueueFull:
                refused.add(name)
        number += 1
    for name in names:
        assert waiting._clients[name].items == pytest.approx(most, abs=1)
    waiting.put("d", 1, "a newcomer")


def test_one_client_s_bytes_leave_room_for_a_whole_body_of_another() -> None:
    mib = 1 << 20
    waiting = queue(max_bytes=256 * mib)
    assert flood(waiting, "a", nbytes=mib) == 192
    with pytest.raises(QueueFull, match="its share for one client: 192 tasks"):
        waiting.check_room("a", mib)
    waiting.put("b", 64 * mib, "b0")
    assert (waiting.items, waiting.nbytes) == (193, 256 * mib)


def test_a_full_queue_names_its_bounds() -> None:
    waiting = queue(max_items=2)
    waiting.put("a", 1, "a0")
    waiting.put("b", 5, "b0")
    with pytest.raises(QueueFull, match="the queue is full: 2 of 2 tasks, 6 of 1048576 bytes"):
        waiting.put("c", 1, "c0")


def test_an_empty_queue_takes_an_item_of_any_size_and_then_no_other() -> None:
    waiting = queue(max_bytes=100)
    waiting.put("a", 500, "a0")
    with pytest.raises(QueueFull):
        waiting.put("b", 1, "b0")


def test_an_item_is_removed_while_it_waits_and_not_once_it_runs() -> None:
    waiting = queue()
    filled(waiting, "a", 2)
    assert waiting.take() == "a0"
    assert not waiting.remove("a0")
    assert waiting.remove("a1")
    assert not waiting.remove("a1")
    assert (waiting.items, waiting.nbytes, len(waiting), waiting.take()) == (1, 1, 0, None)


def test_clients_that_have_nothing_in_the_queue_leave_nothing_behind() -> None:
    waiting = queue()
    for number in range(1000):
        waiting.put(f"client {number}", 1, f"item {number}")
        item = waiting.take()
        assert item is not None
        waiting.done(item, 1.0)
        waiting.put(f"client {number}", 1, "another")
        waiting.remove("another")
    assert (waiting.items, waiting.nbytes) == (0, 0)
    assert not waiting._clients
    assert not waiting._waiting
    assert not waiting._held


steps = st.lists(
    st.tuples(st.sampled_from(["put", "take", "remove", "done"]), st.integers(0, 3)), max_size=200
)


@given(steps)
def test_after_any_steps_the_counts_are_those_of_the_items(
    walk: list[tuple[str, int]],
) -> None:
    waiting, queued, running = queue(max_items=8, max_bytes=40), {}, {}
    for number, (step, choice) in enumerate(walk):
        if step == "put":
            item = f"{'abcd'[choice]}{number}"
            try:
                waiting.put(item[0], choice, item)
            except QueueFull:
                continue
            queued[item] = choice
        elif step == "take":
            taken = waiting.take()
            assert (taken is None) == (not queued)
            if taken is not None:
                running[taken] = queued.pop(taken)
        elif step == "remove" and queued:
            item = sorted(queued)[choice % len(queued)]
            assert waiting.remove(item)
            del queued[item]
        elif step == "done" and running:
            item = sorted(running)[choice % len(running)]
            waiting.done(item, choice / 2)
            del running[item]
        assert waiting.items == len(queued) + len(running) <= 8
        assert waiting.nbytes == sum(queued.values()) + sum(running.values())
        assert len(waiting) == len(queued)
