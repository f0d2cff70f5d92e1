"""Several versions share the requests of a model by the setting `traffic`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from twisted.logger import LogEvent, globalLogPublisher

from batcher.config.model_settings import ModelOverrides
from batcher.config.quota import Quota
from batcher.config.settings import ServerSettings
from batcher.core.request import Parameters
from batcher.errors import InvalidInput, ModelLoadError, ModelNotReady
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, checked, model_spec, rows, tensor

LABELS = {"stable": 3, "canary": 5}
SPLIT = {"stable": 95, "canary": 5}


def model(version: str, **spec: Any) -> RecordingModel:
    return RecordingModel(model_spec(version=version, **spec))


def settings(**own: Any) -> dict[str, ModelOverrides]:
    return {"m": ModelOverrides(**{"labels": LABELS, "traffic": SPLIT, **own})}


def server(*versions: str, **own: Any) -> MemoryServer:
    return MemoryServer(*map(model, versions or ("3", "5")), models=settings(**own))


def answered(memory: MemoryServer, routes: list[str], version: str = "") -> list[Any]:
    """Ask once with each of `routes`; return the version that has answered, or the error."""
    got: list[Any] = [None] * len(routes)
    for index, route in enumerate(routes):
        asked = memory.server.infer("m", {"x": rows(1.0)}, version, Parameters(route=route))
        asked.addCallbacks(
            lambda response, index=index: got.__setitem__(index, response.version),
            lambda failure, index=index: got.__setitem__(index, failure.value),
        )
    memory.work()
    return got


def routes(count: int) -> list[str]:
    return [f"user-{number}" for number in range(count)]


def test_five_percent_of_a_hundred_thousand_requests_go_to_the_canary() -> None:
    memory = server(traffic={"stable": 95, "canary": 5}, max_batch_size=1024)
    asked, found = routes(100_000), Counter[str]()
    for start in range(0, len(asked), 1000):
        found.update(answered(memory, asked[start : start + 1000]))
    assert found["5"] / len(asked) == pytest.approx(0.05, abs=0.002)
    assert found["3"] + found["5"] == len(asked)
    memory.check_nothing_is_left()


def test_a_route_always_goes_to_the_same_version() -> None:
    memory = server(traffic={"stable": 50, "canary": 50})
    first = answered(memory, routes(50))
    assert set(first) == {"3", "5"}
    assert answered(memory, routes(50)) == first
    assert answered(server(traffic={"stable": 50, "canary": 50}), routes(50)) == first


def test_requests_without_a_route_are_divided_too() -> None:
    memory = server(traffic={"stable": 50, "canary": 50})
    found = Counter(answered(memory, [""] * 400))
    assert set(found) == {"3", "5"}
    assert min(found.values()) > 120


def test_a_request_that_names_a_version_gets_that_version() -> None:
    memory = server("3", "5", "7")
    for version in ("3", "5", "7"):
        assert set(answered(memory, routes(20), version)) == {version}
    assert set(answered(memory, routes(20), "canary")) == {"5"}
    assert "7" not in answered(memory, routes(200)), "it has no share"


def test_the_share_of_a_version_that_cannot_answer_goes_to_the_others() -> None:
    memory = server("3", traffic={"stable": 50, "canary": 50})
    assert set(answered(memory, routes(40))) == {"3"}
    loading = memory.add(model("5"))
    assert set(answered(memory, routes(40))) == {"3"}
    loading.loaded.errback(ModelLoadError("broken"))
    assert set(answered(memory, routes(40))) == {"3"}


def test_a_share_comes_with_its_version() -> None:
    memory = server("3", traffic={"stable": 50, "canary": 50})
    late = model("5")
    memory.add(late).loaded.callback(checked(late).loaded())
    assert set(answered(memory, routes(40))) == {"3", "5"}


def test_no_other_version_answers_in_place_of_those_that_are_named() -> None:
    (error,) = set(map(str, answered(server("7"), ["a"])))
    assert "expected version 3 or 5 to answer; none can now" in error
    assert isinstance(answered(server("7"), ["a"])[0], ModelNotReady)


def test_a_version_with_other_inputs_gets_none_of_the_requests() -> None:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(str(event.get("log_format")).format(**event))

    globalLogPublisher.addObserver(observe)
    other = model("5", inputs=(tensor("x", shape=(7,)),))
    memory = MemoryServer(model("3"), other, models=settings(traffic={"stable": 1, "canary": 1}))
    assert set(answered(memory, routes(40))) == {"3"}
    globalLogPublisher.removeObserver(observe)
    (line,) = lines
    assert "m/5 gets none" in line
    assert "expected the inputs and outputs of version 3" in line


def test_wrong_inputs_are_refused_as_without_traffic() -> None:
    memory = server()
    failures: list[Any] = []
    memory.server.infer("m", {"x": np.zeros((1, 9), "f4")}).addErrback(failures.append)
    assert failures[0].check(InvalidInput)


def test_requests_that_are_divided_are_charged_to_quotas() -> None:
    memory = MemoryServer(
        model("3"),
        model("5"),
        models=settings(traffic={"stable": 1, "canary": 1}),
        quotas={"*": Quota(rows_per_s=1, burst_rows=3)},
    )
    got = answered(memory, routes(5))
    assert [getattr(each, "http_status", 200) for each in got] == [200] * 3 + [429] * 2


def test_what_versions_get_is_counted_by_outcome() -> None:
    memory = server(traffic={"stable": 1, "canary": 1})
    found = Counter(answered(memory, routes(40)))
    metrics = memory.server.metrics.render().decode()
    for version, count in found.items():
        labels = f'model="m",outcome="ok",version="{version}"'
        assert f"batcher_variant_requests_total{{{labels}}} {float(count)}" in metrics
    assert "batcher_variant" not in MemoryServer().server.metrics.render().decode()


def test_a_reload_moves_shares_and_keeps_routes() -> None:
    memory = server(traffic={"stable": 90, "canary": 10})
    before = answered(memory, routes(200))
    memory.server.traffic.follow(
        ServerSettings(models=settings(traffic={"stable": 70, "canary": 30}))
    )
    after = answered(memory, routes(200))
    assert sum(each == "5" for each in after) > sum(each == "5" for each in before)
    assert all(now == "5" for was, now in zip(before, after, strict=True) if was == "5")


def test_a_client_that_leaves_leaves_the_queue_of_its_version() -> None:
    memory = server()
    asked = memory.server.infer("m", {"x": rows(1.0)}, "", Parameters(route="a"))
    asked.addErrback(lambda failure: None)
    asked.cancel()
    assert sum(version.scheduler.queue_rows for version in memory.server) == 0
    assert 'outcome="cancelled"' in memory.server.metrics.render().decode()
