"""Whether to ask something that may only cost time."""

from __future__ import annotations

from batcher.serving.caching.redis.breaker import (
    LEAST_SHARE,
    MOST_FAILURES,
    REST_S,
    SPELL_S,
    Ask,
    Breaker,
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(MOST_FAILURES):
        assert breaker.ask(now) is Ask.YES
    for _ in range(MOST_FAILURES):
        breaker.ended(False, now)
    return breaker


def test_a_burst_of_failures_opens_it() -> None:
    breaker = opened(5.0)
    assert breaker.is_open
    assert breaker.ask(5.0 + REST_S - 0.01) is Ask.NO
    assert breaker.ask(5.0 + REST_S) is Ask.PROBE


def test_one_probe_at_a_time_closes_it_or_lets_it_rest_again() -> None:
    breaker = opened()
    assert breaker.ask(REST_S) is Ask.PROBE
    assert breaker.ask(REST_S + 50) is Ask.NO
    breaker.probed(False, REST_S + 50)
    assert breaker.ask(REST_S + 50) is Ask.NO
    assert breaker.ask(2 * REST_S + 50) is Ask.PROBE
    breaker.probed(True, 60.0)
    assert not breaker.is_open
    assert breaker.ask(60.0) is Ask.YES


def test_what_ends_while_it_is_open_changes_nothing() -> None:
    breaker = opened()
    breaker.ended(True, 0.1)
    breaker.ended(False, 0.1)
    assert breaker.ask(REST_S) is Ask.PROBE


def waits(seconds_between: float, count: int) -> list[float]:
    """Return when requests wait for something that always fails, at this interval."""
    breaker, found = Breaker(), []
    for number in range(count):
        now = number * seconds_between
        ask = breaker.ask(now)
        if ask is Ask.YES:
            found.append(now)
            breaker.ended(False, now)
        elif ask is Ask.PROBE:
            breaker.probed(False, now)
    return found


def test_what_always_fails_costs_time_for_a_second_at_most_at_any_rate() -> None:
    for seconds_between in (0.0001, 0.01, 0.3, 0.999, 1.0, 60.0):
        assert waits(seconds_between, 200)[-1] < SPELL_S


def mixed(one_in: int) -> Breaker:
    """Return a breaker after two seconds in which one of so many has failed."""
    breaker = Breaker()
    for number in range(2000):
        if breaker.ask(number / 1000) is Ask.YES:
            breaker.ended(number % one_in != 0, number / 1000)
    return breaker


def test_a_tenth_of_failures_opens_it_at_the_end_of_the_spell_and_fewer_do_not() -> None:
    assert mixed(LEAST_SHARE).is_open
    assert not mixed(2 * LEAST_SHARE).is_open
