"""Rows that several requests share, where keeping their answers fails."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from batcher.core.request import InferenceRequest, InferenceResponse
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
