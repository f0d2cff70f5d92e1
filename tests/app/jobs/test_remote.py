"""What the failures of a client mean for a job, and what a server's description says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.app.jobs import remote
from batcher.app.jobs.remote import RemoteModel, RemoteServer, find_remote
from batcher.client.errors import (
    AnswerLost,
    ClientFailure,
    DeadlineExceeded,
    InferenceFailed,
    MalformedAnswer,
    NotConnected,
)
from batcher.errors import (
    ConfigError,
    InvalidInput,
    ModelError,
    TooLarge,
    Unavailable,
    WorkerLost,
)
from tests.support.models import model_spec

DESCRIBED = {
    "name": "m",
    "versions": ["1", "3"],
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "z", "datatype": "BYTES", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
}
CONFIG = {
    "max_batch_size": 16,
    "input": [{"name": "x"}, {"name": "z", "optional": True}],
    "dynamic_batching": {"priority_levels": 4},
}


def failing(error: ClientFailure, monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """Return what a job hears where a request fails with `error`."""

    class Client:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            pass

        def infer(self, model: str, inputs: Mapping[str, Any], **named: Any) -> Any:
            return fail(error)

        def close(self) -> Any:
            return succeed(None)

    monkeypatch.setattr(remote, "TwistedClient", Client)
    model = RemoteModel("http://localhost:1", model_spec(), 4, 4, "")
    server = RemoteServer(model, Clock())  # type: ignore[arg-type]  # nothing needs a loop here
    heard: list[Failure] = []
    server.infer({}).addErrback(heard.append)
    assert heard[0].value is not None
    return heard[0].value


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InferenceFailed(400, "what"), InvalidInput),
        (InferenceFailed(413, "what"), TooLarge),
        (InferenceFailed(500, "what"), ModelError),
        (InferenceFailed(503, "what", 1), Unavailable),
        (InferenceFailed(429, "what", 1), Unavailable),
        (InferenceFailed(504, "what"), Unavailable),
        (InferenceFailed(403, "what"), ConfigError),
        (NotConnected("what"), Unavailable),
        (DeadlineExceeded("what"), Unavailable),
        (AnswerLost("what"), WorkerLost),
        (MalformedAnswer("what"), MalformedAnswer),
    ],
    ids=lambda value: str(value) if isinstance(value, ClientFailure) else value.__name__,
)
def test_a_failure_is_of_the_rows_or_passes_or_ends_the_job(
    error: ClientFailure, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(failing(error, monkeypatch)) is kind


def test_the_newest_version_is_described_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def described(url: str, api_key: str) -> Any:
        asked.append(url)
        return CONFIG if url.endswith("/config") else DESCRIBED

    monkeypatch.setattr(remote, "_described", described)
    found = find_remote("http://host/", "m n", "")
    place = "http://host/v2/models/m%20n"
    assert asked == [place, f"{place}/versions/3", f"{place}/versions/3/config"]
    assert [(each.name, each.shape) for each in found.spec.inputs] == [("x", (4,)), ("z", (1,))]
    assert [each.name for each in found.spec.required] == ["x"]
    assert (found.shape.rows, found.priority, found.title) == (16, 4, "m n/3 at http://host")


def test_another_kind_of_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_described", lambda url, api_key: {"versions": []})
    with pytest.raises(ConfigError, match="expected a server of this kind"):
        find_remote("http://host", "m", "")


def test_an_address_without_http_and_a_folder_are_told_from_a_server_that_is_away(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"expected an address as http://.*; got localhost:8080"):
        find_remote("localhost:8080", "m", "")
    with pytest.raises(ConfigError, match="expected, with --url, the name of a model there"):
        find_remote("http://host", str(tmp_path), "")
