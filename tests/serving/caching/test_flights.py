"""Rows that several requests share, where keeping an answer, or the row itself, fails."""

from __future__ import annotations

from math import inf

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.errors import DeadlineExceeded, InvalidInput, WorkerLost
from batcher.serving.caching.flights import Flight, Flights
from tests.support.models import rows


def without_memory(flight: Flight, response: InferenceResponse) -> InferenceResponse:
    raise MemoryError


def test_an_answer_that_cannot_be_kept_is_given_all_the_same() -> None:
    flights = Flights(Clock(), lambda: 1.0, 2, without_memory)
    request = InferenceRequest("m", "1", {"x": rows(1.0)}, 1)
    row: Deferred[InferenceResponse] = Deferred()
    first = flights.lead(b"key", request, lambda _: row)
    flight = flights.find(b"key", request.parameters)
    assert flight is not None
    second = flights.join(flight, request.parameters)
    row.callback(InferenceResponse("m", "1", {"y": rows(2.0)}, 0.0, 0.0, 1))
    assert [each.result.origin for each in (first, second)] == ["", "joined"]
    assert flights.count == 0


class Blurred(InvalidInput):
    """An error of a model's author, which Python cannot copy."""

    def __init__(self, sharpness: float, least: float) -> None:
        super().__init__(f"expected a sharpness of at least {least}; got {sharpness}")


REQUEST = InferenceRequest("m", "1", {"x": rows(1.0)}, 1)


def as_it_is(flight: Flight, response: InferenceResponse) -> InferenceResponse:
    return response


def joined(flights: Flights, **parameters: float) -> Deferred[InferenceResponse]:
    """Join the row that runs."""
    flight = flights.find(b"key", Parameters())
    assert flight is not None
    return flights.join(flight, Parameters(**parameters))  # type: ignore[arg-type]


def failure_of(answer: Deferred[InferenceResponse]) -> BaseException:
    """Return the error of `answer`, which has failed."""
    assert isinstance(answer.result, Failure)
    error = answer.result.value
    answer.addErrback(lambda _: None)
    assert error is not None
    return error


@pytest.mark.parametrize("error", [Blurred(0.1, 0.5), RuntimeError("odd")])
def test_an_error_that_cannot_be_copied_reaches_all_that_wait(error: Exception) -> None:
    flights = Flights(Clock(), lambda: 1.0, 2, as_it_is)
    row: Deferred[InferenceResponse] = Deferred()
    answers = [flights.lead(b"key", REQUEST, lambda _: row), joined(flights), joined(flights)]
    row.errback(error)
    assert [str(failure_of(answer)) for answer in answers] == [str(error)] * 3
    assert flights.landed().called


def test_what_one_makes_of_its_error_the_others_do_not_see() -> None:
    flights = Flights(Clock(), lambda: 1.0, 2, as_it_is)
    row: Deferred[InferenceResponse] = Deferred()
    first, second = flights.lead(b"key", REQUEST, lambda _: row), joined(flights)

    def has_run(failure: Failure) -> None:
        failure.value.retry_after = 0  # type: ignore[union-attr]

    first.addErrback(has_run)
    row.errback(WorkerLost("gone", begun=False))
    lost = failure_of(second)
    assert isinstance(lost, WorkerLost)
    assert lost.retry_after == 1


def test_a_row_for_a_request_without_a_deadline_has_that_of_its_model() -> None:
    flights = Flights(Clock(), lambda: inf, 1, as_it_is, to_the_end=True)
    sent: list[InferenceRequest] = []
    run: list[Deferred[InferenceResponse]] = []

    def go_on(request: InferenceRequest) -> Deferred[InferenceResponse]:
        sent.append(request)
        run.append(Deferred())
        return run[-1]

    hasty = InferenceRequest("m", "1", REQUEST.inputs, 1, Parameters(deadline=1.0))
    first = flights.lead(b"key", hasty, go_on)
    second = joined(flights)
    run[0].errback(DeadlineExceeded("late"))
    assert isinstance(failure_of(first), DeadlineExceeded)
    assert [each.parameters.deadline for each in sent] == [1.0, None]
    run[1].errback(DeadlineExceeded("late"))
    assert isinstance(failure_of(second), DeadlineExceeded)
    assert flights.count == 0


def test_a_row_that_cannot_be_run_again_fails_all_that_wait_for_it() -> None:
    flights = Flights(Clock(), lambda: 1.0, 2, as_it_is)
    row: Deferred[InferenceResponse] = Deferred()
    rows_left = [row]
    first = flights.lead(b"key", REQUEST, lambda _: rows_left.pop())
    second = joined(flights, deadline=2.0)
    row.errback(DeadlineExceeded("late"))
    assert isinstance(failure_of(first), DeadlineExceeded)
    assert isinstance(failure_of(second), IndexError)
    assert flights.count == 0
