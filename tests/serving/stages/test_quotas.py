"""Buckets and keys: what is let in, what is refused and until when, and what is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.quota import Quota
from batcher.errors import QuotaExceeded
from batcher.frontends.endpoints.api_key import named_key
from batcher.serving.stages.quotas import CLOCK_GRAIN_S, Bucket, Quotas, quotas_of


def advice(bucket: Bucket, rows: int, now: float) -> int:
    """Charge `rows` and return the `Retry-After`, 0 if they were let in."""
    try:
        bucket.charge(rows, now)
    except QuotaExceeded as err:
        return err.retry_after
    return 0


def test_a_bucket_begins_full_and_is_refilled_with_time() -> None:
    bucket = Bucket("b", rate=10.0, burst=20.0)
    assert [advice(bucket, 5, 100.0) for _ in range(5)] == [0, 0, 0, 0, 1]
    assert advice(bucket, 5, 100.4) == 1
    assert advice(bucket, 5, 100.5) == 0
    assert [advice(bucket, 20, 200.0), advice(bucket, 1, 200.0)] == [0, 1], (
        "a pause fills it up to its burst and no further"
    )


def test_a_refusal_takes_nothing_and_says_what_is_expected() -> None:
    bucket = Bucket("b", rate=2.0, burst=4.0)
    bucket.charge(3, 0.0)
    with pytest.raises(QuotaExceeded, match="expected at most 2 rows/s and 4 at once; got 4 more"):
        bucket.charge(4, 0.0)
    assert advice(bucket, 1, 0.0) == 0


def test_the_advice_is_whole_seconds_until_the_rows_are_there() -> None:
    bucket = Bucket("b", rate=2.0, burst=10.0)
    assert [advice(bucket, rows, 0.0) for rows in (10, 1, 2, 3, 9, 10, 11, 1000)] == [
        0,
        1,
        1,
        2,
        5,
        5,
        5,
        5,
    ]


def test_more_rows_than_a_burst_are_let_in_by_a_full_bucket_and_leave_a_debt() -> None:
    bucket = Bucket("b", rate=10.0, burst=20.0)
    assert advice(bucket, 50, 0.0) == 0
    assert advice(bucket, 1, 0.0) == 4, "3 s until it is empty, and 0.1 s for the row"
    assert advice(bucket, 1, 3.05) == 1
    assert advice(bucket, 1, 3.1) == 0
    assert advice(bucket, 50, 4.0) == 2, "only a full one lets them in"


def test_rows_that_are_given_back_can_be_asked_for_again_but_not_twice() -> None:
    bucket = Bucket("b", rate=1.0, burst=4.0)
    bucket.charge(4, 0.0)
    bucket.give_back(4)
    assert [advice(bucket, 4, 0.0), advice(bucket, 1, 0.0)] == [0, 1]
    bucket.give_back(4)
    bucket.give_back(4)
    assert [advice(bucket, 4, 0.0), advice(bucket, 1, 0.0)] == [0, 1]


def test_who_waits_to_the_second_is_let_in_whatever_the_clock_rounds() -> None:
    bucket = Bucket("b", rate=0.5, burst=2.0)
    assert [advice(bucket, 2, 0.1), advice(bucket, 2, 0.1)] == [0, 4]
    assert (0.1 + 4 - 0.1) * 0.5 < 2, "by less than a clock can tell"
    assert advice(bucket, 2, 0.1 + 4) == 0


def test_a_clock_that_is_set_back_gives_and_takes_nothing() -> None:
    bucket = Bucket("b", rate=1.0, burst=4.0)
    bucket.charge(2, 1000.0)
    assert [advice(bucket, 2, 10.0), advice(bucket, 1, 10.0)] == [0, 1]
    assert advice(bucket, 1, 11.0) == 0


RATES = st.floats(0.01, 1e5)
BURSTS = st.integers(1, 10_000).map(float)
CALLS = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 20_000)), min_size=1, max_size=40)


@given(RATES, BURSTS, CALLS, st.floats(0, 1.8e9))
def test_no_window_lets_in_more_than_a_burst_and_the_rate_but_for_one_last_debt(
    rate: float, burst: float, calls: list[tuple[float, int]], now: float
) -> None:
    bucket = Bucket("b", rate, burst)
    taken: list[tuple[float, int]] = []
    for pause, rows in calls:
        now += pause
        if not advice(bucket, rows, now):
            taken.append((now, rows))
    for first, (began, _) in enumerate(taken):
        rows = 0
        for ended, last in taken[first:]:
            assert (
                rows + min(last, burst)
                <= burst + rate * (ended - began + 2 * CLOCK_GRAIN_S) + 1e-6 * burst
            )
            rows += last


@given(RATES, BURSTS, CALLS, st.floats(0, 1.8e9))
def test_who_waits_as_long_as_it_was_told_to_is_let_in(
    rate: float, burst: float, calls: list[tuple[float, int]], now: float
) -> None:
    bucket = Bucket("b", rate, burst)
    for pause, rows in calls:
        now += pause
        wait = advice(bucket, rows, now)
        if wait:
            now += wait
            assert not advice(bucket, rows, now)


def test_each_known_key_has_its_own_quota_and_all_others_share_one() -> None:
    quotas = Quotas(
        {"a": Quota(rows_per_s=1), "*": Quota(rows_per_s=1), "b": Quota(rows_per_s=1, name="web")}
    )
    a, b, others = quotas.of("a"), quotas.of("b"), quotas.of("")
    assert a is not None
    assert b is not None
    assert others is not None
    assert (a.name, others.name, b.name) == ("quota-1", "quota-2", "web")
    assert quotas.of("unknown") is others
    assert quotas.of("*") is others, "no key is called so"
    assert len({a, b, others}) == 3


def test_without_a_shared_quota_unknown_keys_are_not_limited() -> None:
    quotas = Quotas({"a": Quota(rows_per_s=1)})
    assert quotas.of("") is None
    assert quotas.of("*") is None


def test_where_there_are_no_quotas_nothing_is_looked_at() -> None:
    assert quotas_of({}) is None


@pytest.mark.parametrize(
    ("api_key", "authorization", "key"),
    [
        ("", "", ""),
        ("k", "", "k"),
        (" k ", "Bearer other", "k"),
        ("", "Bearer k", "k"),
        ("", "bearer  k ", "k"),
        (" ", "BEARER k", "k"),
        ("", "Basic azp2", ""),
        ("", "Bearer", ""),
        ("", "k", ""),
    ],
)
def test_a_key_comes_by_its_own_header_or_as_a_bearer_s(
    api_key: str, authorization: str, key: str
) -> None:
    assert named_key(api_key, authorization) == key
