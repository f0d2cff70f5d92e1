"""The routes of trials, who may use them, and what people read on the model's page."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.config.model_settings import ModelOverrides
from tests.frontends.endpoints.conftest import Both
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, model_spec

CANARY = {"version": 5, "steps": [50, 100], "every": "10m"}


def server(control: str = "explicit", **own: Any) -> MemoryServer:
    models = [RecordingModel(model_spec(version=version)) for version in ("3", "5")]
    settings = ModelOverrides(**{"canary": CANARY, **own})
    return MemoryServer(*models, models={"m": settings}, model_control=control)


def post(path: str, *headers: tuple[str, str]) -> bytes:
    local = ("Host", "localhost")
    return ask(path, b"", *headers, method="POST").replace(
        b"Host: batcher.test", f"{local[0]}: {local[1]}".encode()
    )


def test_everybody_reads_where_a_trial_is(both: Both) -> None:
    found = both(server("none"), ask("/models/m/rollout")).decoded()
    assert (found["candidate"], found["stable"], found["outcome"]) == ("5", "3", "running")
    assert (found["percent"], found["step"], found["every_s"]) == (50, 1, 600)
    assert found["false_alarm_rate"] == 0.001
    assert found["answers"] == {
        "5": {"requests": 0, "errors": 0},
        "3": {"requests": 0, "errors": 0},
    }


@pytest.mark.parametrize(
    ("action", "outcome", "version"), [("promote", "promoted", "5"), ("abort", "rolled_back", "3")]
)
def test_clients_that_may_load_models_end_a_trial(
    both: Both, action: str, outcome: str, version: str
) -> None:
    memory = server()
    answer = both(memory, post(f"/models/m/rollout/{action}"))
    assert (answer.status, answer.decoded()["outcome"]) == (200, outcome)
    for value in "abcdef":
        answer = both(memory, ask("/predict", ROW, ("X-Route-Key", value)))
        assert dict(answer.fields)["x-model-version"] == version


@pytest.mark.parametrize("action", ["promote", "abort"])
def test_other_clients_and_foreign_pages_do_not(both: Both, action: str) -> None:
    path = f"/models/m/rollout/{action}"
    answer = both(server("none"), post(path))
    assert answer.status == 403
    assert "under `model_control: explicit` alone" in answer.decoded()["error"]
    memory = server()
    assert both(memory, ask(path, method="POST")).status == 403, "a foreign name"
    assert both(memory, post(path, ("Origin", "https://evil.example"))).status == 403
    assert both(memory, ask("/models/m/rollout")).decoded()["outcome"] == "running"


@pytest.mark.parametrize(
    ("memory", "path", "status", "text"),
    [
        (server(), "/models/other/rollout", 404, "expected one of"),
        (server(canary=None), "/models/m/rollout", 400, "with the setting `canary`"),
        (server(canary={"version": 9}), "/models/m/rollout/promote", 400, "a version on trial"),
    ],
)
def test_where_there_is_no_trial_the_answer_says_so(
    both: Both, memory: MemoryServer, path: str, status: int, text: str
) -> None:
    answer = both(memory, post(path) if path.endswith("promote") else ask(path))
    assert answer.status == status
    assert text in answer.decoded()["error"]


def test_the_page_of_a_model_shows_its_trial_its_versions_and_its_shadow(both: Both) -> None:
    memory = server(shadow={"version": 3, "sample": 1.0})
    for value in "abcdef":
        both(memory, ask("/predict", ROW, ("X-Route-Key", value)))
    page = both(memory, ask("/models/m")).body.decode()
    for text in (
        "Rollout",
        "Version 5 against version 3: running, 50 % of the requests: it has begun.",
    ):
        assert text in page
    for text in ("Versions that share the requests", "Copies for a shadow", "evidence of slower"):
        assert text in page
    plain = both(MemoryServer(), ask("/models/m")).body.decode()
    for text in ("Rollout", "Versions that share", "Copies for"):
        assert text not in plain
