"""Clients that return are told from requests at random, and waited for as long as pays."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from random import Random

import pytest

from batcher.batching.returns import FORGET_S, LEAST_SPAN_S, REVIEW_EVERY, Returns

FIXED_S, ROW_S = 2e-3, 5e-5
BACK_S = 6e-4
"""Seconds after an answer at which the last client is back."""
BATCHES = 100


def seconds(rows: int, group: Hashable = ()) -> float:
    return FIXED_S + ROW_S * rows


def learn(
    returns: Returns, ends: int, rows: int, waiting: int, came: Iterable[float], now: float
) -> float:
    """Let `ends` batches of `rows` rows end, while `waiting` wait; `came` are times after each."""
    for _ in range(ends):
        now += seconds(rows)
        returns.note_end(rows, waiting, now)
        for after in came if returns.counts else ():
            returns.note_rows(0, 1, now + after)
    returns.note_end(rows, waiting, now + seconds(rows))
    return now + seconds(rows)


def back(clients: int) -> list[float]:
    return [BACK_S * (number + 1) / clients for number in range(clients)]


@pytest.fixture
def halves() -> tuple[Returns, float]:
    """Sixteen clients in two half batches, just when a batch has ended."""
    returns = Returns(seconds, 5e-3)
    return returns, learn(returns, BATCHES, 8, 8, back(8), 0.0)


def test_the_other_half_is_waited_for_until_it_is_back(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    returns.plan(8, (), 64, now)
    assert returns.found
    assert returns.rows == 16
    assert BACK_S <= returns.until - now <= 1.4 * BACK_S


def test_the_wait_that_was_planned_last_and_its_bound_are_told(
    halves: tuple[Returns, float],
) -> None:
    returns, now = halves
    assert returns.wait == 0
    returns.plan(8, (), 64, now)
    assert returns.wait == pytest.approx(returns.until - now)
    assert returns.wait <= returns.longest == pytest.approx(2 * seconds(1))
    assert not returns.paused


@pytest.mark.parametrize("bulk", [0, 1, 3])
def test_the_last_of_all_clients_is_waited_for_where_clients_are_seldom_back_late(
    bulk: int,
) -> None:
    """Fifteen of sixteen would be there on average at a time when all sixteen seldom are.

    That `bulk` batches of bulk alone have run says nothing of the clients.
    """
    returns, now = Returns(seconds, 5e-3), 0.0
    for number in range(BATCHES):
        late = 2.0 if number % 4 == 0 else 1.0
        now = learn(returns, 0, 16, 0, [], now)
        for after in back(16) if returns.counts else ():
            returns.note_rows(0, 1, now + late * after)
    for _ in range(bulk):
        returns.note_end(0, 0, now)
    returns.note_end(16, 0, now + seconds(16))
    returns.note_rows(0, 1, now + seconds(16) + 1e-5)
    returns.plan(1, (), 64, now + seconds(16) + 1e-5)
    assert returns.rows == 16


def test_clients_that_have_become_more_than_a_batch_had_are_not_taken_for_all(
    halves: tuple[Returns, float],
) -> None:
    returns, now = halves
    returns.note_end(4, 4, now)
    returns.plan(4, (), 64, now)
    assert returns.rows == 8, "only four can come back"


def test_who_is_back_already_is_not_waited_for_again(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    for after in back(8)[:6]:
        returns.note_rows(0, 1, now + after)
    returns.plan(14, (), 64, now + back(8)[5])
    assert returns.rows == 16


def test_no_more_rows_are_waited_for_than_a_batch_holds(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    returns.plan(8, (), 12, now)
    assert returns.rows == 12
    returns.note_end(12, 4, now)
    returns.plan(12, (), 12, now)
    assert returns.rows == 0, "a full batch has nobody to wait for"


def test_clients_that_take_longer_than_a_batch_are_not_waited_for() -> None:
    returns = Returns(seconds, 5e-3)
    now = learn(returns, BATCHES, 8, 8, [after + 1.5 * FIXED_S for after in back(8)], 0.0)
    returns.plan(8, (), 64, now)
    assert returns.rows == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [50.0, 1000.0, 5000.0])
def test_requests_at_random_are_not_taken_for_clients_that_return(rate: float, seed: int) -> None:
    random, returns = Random(seed), Returns(seconds, 5e-3)
    now, ends = 0.0, seconds(1)
    found = 0
    for _ in range(4000):
        now += random.expovariate(rate)
        while ends <= now:
            returns.note_end(1, 0, ends)
            found += returns.found
            ends += seconds(1) if random.random() < 0.7 else 3 * seconds(1)
        if returns.counts:
            returns.note_rows(0, 1, now)
    assert found <= 100, "by chance, now and then"


@pytest.mark.parametrize(("span", "max_wait"), [(LEAST_SPAN_S / 2, 5e-3), (2e-3, 0.0)])
def test_nothing_is_counted_where_no_wait_could_pay(span: float, max_wait: float) -> None:
    returns = Returns(lambda rows, group: span, max_wait)
    learn(returns, REVIEW_EVERY, 8, 8, [], 0.0)
    assert not returns.counts


def test_after_a_while_without_a_batch_all_is_forgotten(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    returns.note_end(8, 8, now + 2 * FORGET_S)
    assert not returns.found


def test_waits_in_vain_soon_end(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    for _ in range(2 * REVIEW_EVERY):
        returns.plan(8, (), 64, now)
        if not returns.rows:
            return
        returns.note_sent(8, returns.until)
        now = returns.until + seconds(8)
        returns.note_end(8, 0, now)
    raise AssertionError("the worker still waits")


def test_waits_that_bring_less_than_half_batches_pause_for_longer_and_longer(
    halves: tuple[Returns, float],
) -> None:
    """The loop needs so long for all requests that half batches, which hide that, are better."""
    returns, now = halves
    waited = []
    for _ in range(1000):
        now = learn(returns, 1, 8, 8, back(8), now)
        waited.append(not returns.paused)
        returns.plan(8, (), 64, now)
        if returns.rows:
            returns.note_sent(16, returns.until)
            now += 2 * seconds(8) + seconds(16)  # as if the loop had needed two more half batches
            returns.note_end(16, 0, now)
    assert 0 < sum(waited[:100]) < 50
    assert sum(waited[-500:]) < 50


@pytest.mark.parametrize("begin", range(20))
def test_one_slow_stretch_of_the_machine_is_no_reason_to_give_full_batches_up(
    halves: tuple[Returns, float], begin: int
) -> None:
    returns, now = halves
    for number in range(100):
        returns.note_end(16, 0, now)
        assert not returns.paused
        for after in back(16):
            returns.note_rows(0, 1, now + after)
        returns.plan(1, (), 64, now + BACK_S / 16)
        returns.note_sent(16, returns.until)
        now += BACK_S + seconds(16) * (2 if begin <= number < begin + REVIEW_EVERY else 1)


def test_while_waits_for_all_pause_half_of_the_clients_are_waited_for(
    halves: tuple[Returns, float],
) -> None:
    returns, now = halves
    while not returns.paused:
        returns.note_end(16, 0, now)
        for after in back(16):
            returns.note_rows(0, 1, now + after)
        returns.plan(1, (), 64, now)
        returns.note_sent(16, returns.until)
        now += 2 * seconds(8) + seconds(16)
    returns.note_end(15, 1, now)
    returns.plan(1, (), 64, now)
    assert returns.rows == 8, "one and fifteen would stay apart for ever"
    returns.note_end(8, 8, now)
    returns.plan(8, (), 64, now)
    assert returns.rows == 0, "half of them are there"


def test_rows_that_come_after_a_batch_are_reckoned_by_its_size(
    halves: tuple[Returns, float],
) -> None:
    returns, now = halves
    for rows, expected in ((8, 12), (4, 8), (16, 20)):
        returns.note_end(rows, 4, now)
        returns.plan(4, (), 64, now)
        assert returns.rows == expected


def test_half_of_clients_who_are_always_as_many_are_waited_for_though_they_are_back_late() -> None:
    """One row runs while the loop works for the 31 others, and so on for ever."""
    returns, now = Returns(seconds, 5e-3), 0.0
    for _ in range(BATCHES):
        now += seconds(31)
        returns.note_end(31, 1, now)
        for number in range(31 if returns.counts else 0):
            returns.note_rows(0, 1, now + seconds(1) * (0.5 if number < 12 else 1.01))
        now += 1.2 * seconds(1)
        returns.note_end(1, 31, now)
    assert returns.found
    returns.note_end(31, 1, now)
    returns.plan(1, (), 64, now)
    assert returns.rows == 16


def test_it_is_told_when_all_are_there_that_were_waited_for(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    assert not returns.note_rows(8, 9, now), "nobody is waited for yet"
    returns.plan(9, (), 64, now)
    assert not returns.note_rows(9, 15, now)
    assert returns.note_rows(15, 16, now)
    returns.note_sent(16, now)
    assert not returns.note_rows(15, 16, now), "their batch is on its way"


def test_a_clock_that_is_set_back_does_no_harm(halves: tuple[Returns, float]) -> None:
    returns, now = halves
    returns.note_rows(0, 1, now - 1)
    returns.plan(8, (), 64, now - 1)
    returns.note_sent(8, now - 1)
    for _ in range(REVIEW_EVERY):
        returns.note_end(8, 8, now - 1)


def test_rows_that_always_leave_before_they_run_are_no_reason_to_divide_by_nothing(
    halves: tuple[Returns, float],
) -> None:
    """Bulk alone runs for minutes: of other batches next to nothing is known any more."""
    returns, now = halves
    for _ in range(45_000):
        now += seconds(1)
        returns.note_end(0, 0, now)
        for after in back(8):
            returns.note_rows(0, 1, now + after)
        returns.plan(8, (), 64, now + BACK_S)
        assert returns.rows == 0
