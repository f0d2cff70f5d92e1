"""`GET …/batching`: times learnt from a model's batches, and why its last batches were sent."""

from __future__ import annotations

from typing import Any

from tests.frontends.endpoints.conftest import Both
from tests.frontends.endpoints.oip.test_infer import error
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.models import RecordingModel, rows

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


def test_an_unknown_model_has_none(both: Both) -> None:
    assert "'other'" in error(
        both(MemoryServer(), ask("/v2/models/other/batching", method="GET")), 404
    )
