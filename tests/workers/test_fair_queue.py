"""The fair queue: who is served next, who gets in, and what is left behind."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import QueueFull
from batcher.workers.fair_queue import FairQueue


class Work(NamedTuple):
    """An item; its number tells it from others."""

    client: str
    number: int
    nbytes: int = 1


def queue(max_items: int = 1024, max_bytes: int = 1 << 20) -> FairQueue[Work]:
    return FairQueue("the queue", max_items, max_bytes)


def filled(waiting: FairQueue[Work], client: str, count: int) -> None:
    for number in range(count):
        waiting.put(Work(client, number))


def flood(waiting: FairQueue[Work], *clients: str, nbytes: int = 1) -> Counter[str]:
    """Put items of each client in turn until all are refused; return how many went in."""
    taken: Counter[str] = Counter()
    refused: set[str] = set()
    while len(refused) < len(clients):
        for client in clients:
            try:
                waiting.put(Work(client, taken[client], nbytes))
            except QueueFull:
                refused.add(client)
            else:
                taken[client] += 1
    return taken


def served(waiting: FairQueue[Work], seconds: dict[str, float], total: float) -> Counter[str]:
    """Run items one after the other for `total` seconds; return the seconds of each client.

    An item takes as many `seconds` as its client's say.
    """
    spent: Counter[str] = Counter()
    while spent.total() < total:
        item = waiting.take()
        assert item is not None
        waiting.done(item, seconds[item.client])
        spent[item.client] += seconds[item.client]
    return spent


def test_the_items_of_one_client_are_taken_in_the_order_in_which_they_came() -> None:
    waiting = queue()
    filled(waiting, "a", 3)
    assert [waiting.take() for _ in range(4)] == [Work("a", 0), Work("a", 1), Work("a", 2), None]


def test_a_client_that_comes_behind_a_flood_is_next() -> None:
    waiting = queue()
    filled(waiting, "a", 500)
    first = waiting.take()
    waiting.put(Work("b", 0))
    assert (first, waiting.take()) == (Work("a", 0), Work("b", 0))


def test_a_free_worker_goes_to_the_client_with_the_fewest_running_items() -> None:
    waiting = queue()
    filled(waiting, "a", 10)
    filled(waiting, "b", 10)
    taken = [waiting.take() for _ in range(4)]
    assert sorted(item.client for item in taken if item) == ["a", "a", "b", "b"]


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


@pytest.mark.parametrize(("clients", "most"), [("a", 768), ("ab", 439), ("abc", 308)])
def test_each_client_may_hold_three_times_what_is_free(clients: str, most: int) -> None:
    waiting = queue(max_items=1024)
    taken = flood(waiting, *clients)
    assert [taken[client] for client in clients] == pytest.approx([most] * len(clients), abs=1)
    waiting.put(Work("a newcomer", 0))


def test_one_client_s_bytes_leave_room_for_a_whole_body_of_another() -> None:
    mib = 1 << 20
    waiting = queue(max_bytes=256 * mib)
    assert flood(waiting, "a", nbytes=mib)["a"] == 192
    with pytest.raises(QueueFull, match="full for this client, which has 192 tasks"):
        waiting.put(Work("a", 192, mib))
    waiting.put(Work("b", 0, 64 * mib))
    assert (waiting.items, waiting.nbytes) == (193, 256 * mib)


def test_a_full_queue_names_its_bounds() -> None:
    waiting = queue(max_items=2)
    waiting.put(Work("a", 0))
    waiting.put(Work("b", 0, 5))
    with pytest.raises(QueueFull, match="the queue is full: 2 of 2 tasks, 6 of 1048576 bytes"):
        waiting.put(Work("c", 0))


def test_an_empty_queue_takes_an_item_of_any_size_and_then_no_other() -> None:
    waiting = queue(max_bytes=100)
    waiting.put(Work("a", 0, 500))
    with pytest.raises(QueueFull):
        waiting.put(Work("b", 0))


def test_an_item_is_removed_while_it_waits_and_not_once_it_runs() -> None:
    waiting = queue()
    filled(waiting, "a", 2)
    assert waiting.take() == Work("a", 0)
    assert not waiting.remove(Work("a", 0))
    assert waiting.remove(Work("a", 1))
    assert not waiting.remove(Work("a", 1))
    assert (waiting.items, waiting.nbytes, waiting.waiting, waiting.take()) == (1, 1, 0, None)


def test_clients_that_have_nothing_in_the_queue_leave_nothing_behind() -> None:
    waiting = queue()
    for number in range(1000):
        waiting.put(Work(f"client {number}", 0))
        item = waiting.take()
        assert item is not None
        waiting.done(item, 1.0)
        waiting.put(Work(f"client {number}", 1))
        assert waiting.remove(Work(f"client {number}", 1))
    assert (waiting.items, waiting.nbytes) == (0, 0)
    assert not waiting._shares
    assert not waiting._in_line


steps = st.lists(
    st.tuples(st.sampled_from(["put", "take", "remove", "done"]), st.integers(0, 3)), max_size=200
)


@given(steps)
def test_after_any_steps_the_counts_are_those_of_the_items(walk: list[tuple[str, int]]) -> None:
    fair = queue(max_items=8, max_bytes=40)
    waiting: list[Work] = []
    running: list[Work] = []
    for number, (step, choice) in enumerate(walk):
        if step == "put":
            item = Work("abcd"[choice], number, choice)
            try:
                fair.put(item)
            except QueueFull:
                continue
            waiting.append(item)
        elif step == "take":
            taken = fair.take()
            assert (taken is None) == (not waiting)
            if taken is not None:
                waiting.remove(taken)
                running.append(taken)
        elif step == "remove" and waiting:
            assert fair.remove(waiting.pop(choice % len(waiting)))
        elif step == "done" and running:
            fair.done(running.pop(choice % len(running)), choice / 2)
        assert fair.items == len(waiting) + len(running) <= 8
        assert fair.nbytes == sum(item.nbytes for item in waiting + running)
        assert fair.waiting == len(waiting)
