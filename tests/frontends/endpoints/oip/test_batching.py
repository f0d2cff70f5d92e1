"""`GET …/batching`: times learnt from a model's batches, and why its last batches were sent."""

from __future__ import annotations

from typing import Any

from tests.frontends.endpoints.conftest import Both
from tests.frontends.endpoints.oip.test_infer import error
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.models import RecordingModel, model_spec, rows

ASK = ask("/v2/models/m/batching", method="GET")


def test_it_tells_the_policy_and_that_nothing_is_known_yet(both: Both) -> None:
    document = both(MemoryServer(defaults={"max_batch_size": 8}), ASK).decoded()
    assert (document["policy"], document["max_batch_size"], document["batch_ceiling_rows"]) == (
        "eager",
        8,
        8,
    )
    assert (document["batch_ms"], document["flushes"], document["last_batches"]) == ([], {}, [])


def test_it_tells_what_batches_took_and_why_they_were_sent() -> None:
    def slow(inputs: Any) -> Any:
        server.clock.advance(0.25)
        return {"y": inputs["x"]}

    server = MemoryServer(RecordingModel(predict=slow))
    for values in ((1.0,), (1.0, 2.0)):
        over_connection(server, ask("/predict", rows(*values).tobytes()))
    document = over_connection(server, ASK).decoded()
    assert document["batch_ms"] == [{"rows": 1.0, "ms": 250.0}, {"rows": 2.0, "ms": 250.0}]
    assert document["last_batches"] == [
        {"rows": 1, "reason": "idle"},
        {"rows": 2, "reason": "idle"},
    ]
    assert document["flushes"] == {"idle": 2}


def test_it_explains_in_words_and_tells_the_numbers_behind_them() -> None:
    def slow(inputs: Any) -> Any:
        server.clock.advance(0.25)
        return {"y": inputs["x"]}

    server = MemoryServer(RecordingModel(predict=slow))
    server.server.metrics.loop_seconds = server.clock.seconds
    for _ in range(2):
        server.clock.advance(0.75)
        over_connection(server, ask("/predict", rows(1.0).tobytes()))
    document = over_connection(server, ASK).decoded()
    assert document["explanation"]["situation"] == "loop"
    assert "the loop is the bottleneck" in document["explanation"]["because"][0]
    assert document["explanation"]["change"]
    assert document["lately"] == {
        "seconds": 2.0,
        "ended_s_ago": 0.0,
        "batches": 2,
        "rows": 2,
        "requests": 2,
        "rows_per_batch": 1.0,
        "requests_at_once": 0.25,
        "queue_ms": 0.0,
        "batch_ms": 250.0,
        "model_busy": 0.25,
        "loop_busy": 1.0,
        "padding": 0.0,
        "flush_shares": {"idle": 1.0},
        "refused_rows": {},
        "expired_rows": 0,
        "failed_batches": 0,
    }
    assert document["wait"] == {
        "clients_return": False,
        "ms": 0.0,
        "longest_ms": 5.0,
        "max_delay_ms": 5.0,
    }
    assert (document["queue_rows"], document["shapes"]) == (0, 0)
    assert document["instances"] == {"alive": 1, "all": 1}


def test_a_model_that_still_loads_or_has_failed_answers_503(both: Both) -> None:
    server = MemoryServer()
    loading = server.add(RecordingModel(model_spec(name="late")))
    request = ask("/v2/models/late/batching", method="GET")
    assert "loading" in error(both(server, request), 503)
    loading.loaded.errback(RuntimeError("no"))
    assert "failed" in error(both(server, request), 503)


def test_an_unknown_model_has_none(both: Both) -> None:
    assert "'other'" in error(
        both(MemoryServer(), ask("/v2/models/other/batching", method="GET")), 404
    )
