"""When a call is repeated, and when never: the policy, `Retry-After`, all attempts of a call."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.client.attempts import UNTIL_READY, Attempts, checked_options
from batcher.client.errors import (
    AnswerLost,
    ClientFailure,
    DeadlineExceeded,
    InferenceFailed,
    MalformedAnswer,
    NotConnected,
)
from batcher.client.request_building import ReadyOperation, infer_operation
from batcher.client.response_reading import HttpResponse, seconds_of
from batcher.client.retrying import RetryPolicy, may_go_elsewhere, next_wait
from tests.support.oip_peer import refused

WALL = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
USUAL = RetryPolicy()
NOBODY = NotConnected("nobody")
FULL = InferenceFailed(503, "full", 2.0)
NEVER = [
    AnswerLost("cut off"),
    DeadlineExceeded("late"),
    MalformedAnswer("odd"),
    InferenceFailed(503, "the deadline passed"),
    InferenceFailed(429, "too many"),
    InferenceFailed(500, "the model failed", 1.0),
    InferenceFailed(400, "wrong", 1.0),
]


def wait(
    failure: ClientFailure,
    attempt: int = 0,
    left: float = 60.0,
    jitter: float = 0.0,
    policy: RetryPolicy = USUAL,
) -> float | None:
    return next_wait(policy, attempt, 1000.0, 1000.0 + left, failure, jitter)


@pytest.mark.parametrize("failure", NEVER, ids=str)
def test_what_may_have_run_is_never_repeated(failure: ClientFailure) -> None:
    assert wait(failure) is None


@pytest.mark.parametrize(
    ("attempt", "expected"), [(0, 0.1), (1, 0.2), (2, 0.4), (5, 3.2), (6, 5.0), (5000, 5.0)]
)
def test_connections_are_tried_again_after_waits_that_double_up_to_a_limit(
    attempt: int, expected: float
) -> None:
    assert wait(NOBODY, attempt, policy=RetryPolicy(10**6)) == pytest.approx(expected)
    assert wait(NOBODY, attempt, jitter=1.0, policy=RetryPolicy(10**6)) == pytest.approx(
        2 * expected
    )


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_repeated_no_earlier_than_it_asks(status: int) -> None:
    assert wait(InferenceFailed(status, "later", 7.0)) == 7.0
    assert wait(InferenceFailed(status, "later", 7.0), jitter=1.0) == pytest.approx(7.1)
    assert wait(InferenceFailed(status, "now", 0.0)) == 0.0


def test_retries_are_bounded() -> None:
    assert wait(FULL, attempt=2) is not None
    assert wait(FULL, attempt=3) is None
    assert wait(NOBODY, attempt=0, policy=RetryPolicy(0)) is None


def test_a_wait_that_would_outlast_the_time_is_not_begun() -> None:
    assert wait(FULL, left=2.01) == 2.0
    assert wait(FULL, left=2.0) is None
    assert wait(FULL, left=float("inf")) == 2.0


def test_patience_repeats_what_a_server_or_the_network_says_but_not_the_end_of_the_time() -> None:
    for failure in (
        NOBODY,
        FULL,
        AnswerLost("cut off"),
        InferenceFailed(400, "not ready"),
        InferenceFailed(503, "not ready"),
    ):
        assert wait(failure, 10**6, policy=UNTIL_READY) is not None
    for failure in (DeadlineExceeded("late"), MalformedAnswer("odd")):
        assert wait(failure, policy=UNTIL_READY) is None


@given(
    st.integers(0, 2000),
    st.floats(0, 1),
    st.floats(0, 100),
    st.sampled_from([NOBODY, FULL, *NEVER])
    | st.floats(0, 100).map(lambda after: InferenceFailed(503, "", after)),
)
def test_no_wait_ever_passes_the_deadline_or_comes_before_what_was_asked(
    attempt: int, jitter: float, left: float, failure: ClientFailure
) -> None:
    found = wait(failure, attempt, left, jitter, RetryPolicy(1000))
    if found is not None:
        assert 1000.0 + found < 1000.0 + left
        assert found >= (getattr(failure, "retry_after", None) or 0.0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\u0661", None),
        ("9" * 400, None),
        ("Tue, 99 Nov 2023 22:13:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_as_if_absent(
    value: str | None, expected: float | None
) -> None:
    assert seconds_of(value, WALL) == expected


@given(
    st.text()
    | st.from_regex(
        r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ ([A-Z]+|[+-]\d+)", fullmatch=True
    )
)
def test_no_retry_after_is_an_error(value: str) -> None:
    found = seconds_of(value, WALL)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"expected 1; got 2"}', "expected 1; got 2"),
        (b'{"detail":"x"}', '{"detail":"x"}'),
        (b"[]", "[]"),
        (b"<h1>Bad \xff</h1>", "<h1>Bad �</h1>"),
        (b"", "the server gave no reason"),
    ],
)
def test_an_error_is_told_in_the_servers_words_whoever_wrote_them(
    body: bytes, message: str
) -> None:
    attempts = Attempts(ReadyOperation(), RetryPolicy(), 1.0, 0.0)
    with pytest.raises(InferenceFailed) as caught:
        attempts.read(HttpResponse(502, {}, body), WALL)
    assert (caught.value.status, caught.value.message, caught.value.retry_after) == (
        502,
        message,
        None,
    )
    assert str(caught.value) == f"502: {message}"


def test_a_failure_survives_copying_and_pickling() -> None:
    for again in (copy.copy(FULL), pickle.loads(pickle.dumps(FULL))):
        assert (again.status, again.message, again.retry_after) == (503, "full", 2.0)


def test_failures_are_also_what_python_calls_them() -> None:
    assert issubclass(NotConnected, ConnectionError)
    assert issubclass(AnswerLost, ConnectionError)
    assert issubclass(DeadlineExceeded, TimeoutError)


def test_each_attempt_tells_the_server_what_is_left_and_the_first_the_callers_own_number() -> None:
    attempts = Attempts(
        infer_operation("m", {"x": [[1.0, 2, 3, 4]]}, "", None, 0, ""),
        RetryPolicy(),
        0.3,
        1e9 + 0.1,
    )
    first, left = attempts.next_request(1e9 + 0.1)
    assert left == 0.3
    assert b'"timeout":300000' in first.body
    assert attempts.next_wait(NOBODY, 1e9 + 0.15, 0.0) == 0.1
    second, left = attempts.next_request(1e9 + 0.25)
    assert left == pytest.approx(0.15, abs=1e-6)
    told = int(second.body.partition(b'"timeout":')[2].partition(b"}")[0])
    assert 149_999 <= told <= 150_001 + 300_000 / 64, "in steps of a 64th of the whole"
    with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
        attempts.next_request(1e9 + 0.41)


def test_without_a_limit_the_server_is_told_none_and_a_long_one_is_cut_to_what_it_takes() -> None:
    operation = infer_operation("m", {"x": [[1, 2, 3, 4]]}, "", None, 0, "")
    assert b"timeout" not in operation.request(float("inf")).body
    assert b'"timeout":86400000000}' in operation.request(1e9).body
    assert b'"timeout":1}' in operation.request(1e-9).body


def test_a_call_gives_up_with_the_servers_own_error() -> None:
    attempts = Attempts(ReadyOperation(), RetryPolicy(1), 10.0, 0.0)
    for attempt in range(2):
        attempts.next_request(0.0)
        with pytest.raises(InferenceFailed) as caught:
            attempts.read(refused(503, "3"), WALL)
        if attempt == 0:
            assert attempts.next_wait(caught.value, 0.0, 0.0) == 3.0
    with pytest.raises(InferenceFailed) as again:
        attempts.next_wait(caught.value, 3.0, 0.0)
    assert again.value is caught.value


@pytest.mark.parametrize("status", [204, 301])
def test_success_without_an_answer_is_malformed(status: int) -> None:
    with pytest.raises(MalformedAnswer, match=f"expected status 200; got {status}"):
        Attempts(ReadyOperation(), RetryPolicy(), 1.0, 0.0).read(
            HttpResponse(status, {}, b""), WALL
        )


@pytest.mark.parametrize(
    "address", ["localhost:8080", "ftp://h", "http://", "http://h?x=1", "http://h#x"]
)
def test_an_address_must_be_one_of_a_server(address: str) -> None:
    with pytest.raises(ValueError, match="expected one such as http://localhost:8080"):
        checked_options(address, 1.0, 0)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_some_time(timeout: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0 seconds"):
        checked_options("http://h", timeout, 0)
    with pytest.raises(ValueError, match="expected more than 0 seconds"):
        checked_options("http://h", 1.0, 0).attempts(ReadyOperation(), timeout, 0.0)


def test_retries_must_be_a_number_of_them() -> None:
    with pytest.raises(ValueError, match="retries: expected 0 or more; got -1"):
        checked_options("http://h", 1.0, -1)


def test_a_path_behind_the_address_is_kept() -> None:
    address = checked_options("https://h:1/models/", 1.0, 0).address
    assert (address.is_secure, address.host, address.port) == (True, "h", 1)
    assert (address.authority, address.prefix) == ("h:1", "/models")


def test_a_key_is_one_that_a_header_can_carry_and_is_not_shown() -> None:
    for key in ("two words", "ключ", "line\n"):
        with pytest.raises(
            ValueError, match=r"^api_key: expected visible ASCII characters; got others$"
        ):
            checked_options("http://h", 1.0, 0, key)
    assert "SECRET" not in repr(checked_options("http://h", 1.0, 0, "SECRET"))


def test_a_server_without_a_connection_is_no_attempt_where_there_are_others() -> None:
    assert may_go_elsewhere(RetryPolicy(1), 9, NOBODY)
    assert not may_go_elsewhere(RetryPolicy(1), 1, FULL)
    assert not may_go_elsewhere(RetryPolicy(0), 0, NOBODY)
