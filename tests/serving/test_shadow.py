"""A shadow gets copies of requests, and no client ever notices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from batcher.config.model_settings import ModelOverrides
from batcher.core.request import Parameters
from batcher.core.spec import Array
from batcher.errors import ModelNotReady
from batcher.serving.model_version import ModelVersion
from batcher.serving.shadow_metrics import ShadowCounts
from batcher.serving.stages.shadow import MAX_COPIES
from tests.support.http import MemoryServer
from tests.support.models import Predict, RecordingModel, double, model_spec, rows, tensor

ALWAYS = {"version": 5, "sample": 1.0}
ON_POOL = ModelVersion.run_on_pool


def close(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] * 2.000001}


def other(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] * [3, -1, -1, -1]}


def raising(inputs: Mapping[str, Array]) -> dict[str, Array]:
    raise RuntimeError("broken")


def server(predict: Predict = double, spec: Any = None, **own: Any) -> MemoryServer:
    shadow = RecordingModel(spec or model_spec(version="5"), predict)
    settings = ModelOverrides(**{"shadow": ALWAYS, "isolate": False, **own})
    return MemoryServer(RecordingModel(model_spec(version="3")), shadow, models={"m": settings})


def ask(memory: MemoryServer, count: int = 1, **parameters: Any) -> list[Any]:
    """Send one request of `count` rows; return a list that will hold the response or the error."""
    got: list[Any] = []
    asked = memory.server.infer("m", {"x": rows(*range(count))}, "", Parameters(**parameters))
    asked.addCallbacks(got.append, lambda failure: got.append(failure.value))
    return got


def work_without(memory: MemoryServer, *hung: str) -> None:
    """Run every batch but those of the versions that are `hung`."""
    for _ in range(20):
        memory.turn()
        for title, worker in memory.workers.items():
            while worker.batches and title not in hung:
                memory.front.burst(worker.perform)


def counts(memory: MemoryServer) -> ShadowCounts:
    return memory.server.metrics.shadows.of("m", "5")


def test_a_version_is_not_compared_with_itself() -> None:
    memory = server(traffic={3: 1, 5: 1}, max_batch_size=1)
    for number in range(20):
        ask(memory, route=f"u{number}")
    memory.work()
    memory.wait(1.0)  # for batches of the bulk class
    memory.work()
    by_shadow = memory.server.metrics.variants.of("m", "5").outcomes["ok"]
    assert 0 < by_shadow < 20
    assert counts(memory).outcomes == {"same": 20 - by_shadow}
    memory.check_nothing_is_left()


def test_clients_are_answered_by_the_version_that_is_no_shadow() -> None:
    memory = server(other)
    got = ask(memory, 3)
    memory.work()
    assert got[0].version == "3"
    assert len(memory.models[1].batches) == 1
    assert counts(memory).outcomes == {"different": 1}
    memory.check_nothing_is_left()


@pytest.mark.parametrize(
    ("predict", "outcome", "found"),
    [
        (double, "same", {"rows": 3, "equal": 3, "labelled": 3, "agreeing": 3}),
        (close, "same", {"rows": 3, "equal": 3, "labelled": 3, "agreeing": 3}),
        # All rows have four equal numbers, and the first of them counts as the largest.
        (other, "different", {"rows": 3, "equal": 1, "labelled": 3, "agreeing": 3}),
    ],
)
def test_answers_are_compared_row_by_row(
    predict: Predict, outcome: str, found: dict[str, int]
) -> None:
    memory = server(predict)
    ask(memory, 3)
    memory.work()
    assert counts(memory).outcomes == {outcome: 1}
    assert counts(memory).rows == found


def test_a_share_of_the_requests_is_copied() -> None:
    memory = server(shadow={"version": 5, "sample": 0.1})
    for _ in range(40):
        for _ in range(25):
            ask(memory)
        memory.work()
    copied = sum(len(batch["x"]) for batch in memory.models[1].batches)
    assert 50 < copied < 170


def test_copies_are_of_the_bulk_class_and_charged_to_nobody() -> None:
    memory = server()
    ask(memory, key="SECRET")
    memory.workers["m/3"].batches or memory.hand_over()
    memory.front.burst(memory.workers["m/3"].perform)
    memory.turn()
    (batch,) = memory.workers["m/5"].batches
    assert memory.server.metrics.model("m", "5").flushes == {"bulk": 1}
    del batch


def test_a_shadow_that_fails_is_counted_and_seen_by_nobody() -> None:
    memory = server(raising)
    got = [ask(memory) for _ in range(3)]
    memory.work()
    assert [each[0].version for each in got] == ["3"] * 3
    assert counts(memory).outcomes == {"failed": 3}


def test_a_shadow_that_hangs_delays_nobody_and_its_copies_are_bounded() -> None:
    memory = server()
    got = []
    for _ in range(MAX_COPIES + 20):
        got.append(ask(memory))
        work_without(memory, "m/5")
    assert all(each[0].version == "3" for each in got), "all were answered at once"
    assert counts(memory).outcomes == {"dropped": 20}
    memory.wait(31.0)
    assert counts(memory).outcomes == {"dropped": 20, "failed": MAX_COPIES}
    ask(memory)
    work_without(memory, "m/5")
    assert counts(memory).outcomes["dropped"] == 20, "there is room again"
    memory.work()
    memory.check_nothing_is_left()


def test_a_shadow_that_is_not_there_or_not_ready_drops_copies() -> None:
    memory = server(shadow={"version": 9, "sample": 1})
    got = ask(memory)
    memory.work()
    assert got[0].version == "5", "the newest that is no shadow"
    assert memory.server.metrics.shadows.of("m", "9").outcomes == {"not_ready": 1}
    memory = server()
    memory.server.find("m", "5").unload()
    got = ask(memory)
    memory.work()
    assert got[0].version == "3"
    assert counts(memory).outcomes == {"not_ready": 1}


def test_a_shadow_with_other_inputs_gets_no_copies() -> None:
    memory = server(spec=model_spec(version="5", inputs=(tensor("x", shape=(7,)),)))
    got = ask(memory)
    memory.work()
    assert got[0].version == "3"
    assert counts(memory).outcomes == {"not_ready": 1}


def test_no_client_is_answered_by_a_shadow_that_is_the_only_version() -> None:
    memory = server()
    memory.server.find("m", "3").unload()
    assert isinstance(ask(memory)[0], ModelNotReady)


def test_a_request_that_fails_has_no_copy() -> None:
    memory = server()
    memory.models[0]._predict = raising
    ask(memory)
    memory.work()
    assert memory.models[1].batches == []


def test_a_shadow_beside_shares_compares_with_whichever_version_answered() -> None:
    memory = server(traffic={"3": 1}, shadow=ALWAYS)
    ask(memory, route="a")
    memory.work()
    assert counts(memory).outcomes == {"same": 1}


@pytest.mark.parametrize("bound", ["MAX_LOOP_BYTES", "MAX_LOOP_COPY_BYTES"])
def test_large_answers_are_copied_and_compared_on_the_pool(bound: str) -> None:
    memory, sizes = server(), []

    def on_pool(version: ModelVersion, nbytes: int, *args: Any) -> Any:
        sizes.append(nbytes)
        return ON_POOL(version, nbytes, *args)

    with (
        patch(f"batcher.serving.stages.shadow.{bound}", 1),
        patch.object(ModelVersion, "run_on_pool", on_pool),
    ):
        ask(memory, 3)
        memory.work()
    assert len(sizes) == 1
    assert counts(memory).outcomes == {"same": 1}
    memory.check_nothing_is_left()


def test_texts_and_ragged_rows_are_compared_too() -> None:
    texts = np.array([b"a", b"b"], object)
    spec = {"outputs": (tensor("y", "BYTES", ()),)}

    def words(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": texts[: len(inputs["x"])]}

    def turned(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": words(inputs)["y"][::-1]}

    memory = MemoryServer(
        RecordingModel(model_spec(version="3", **spec), words),
        RecordingModel(model_spec(version="5", **spec), turned),
        models={"m": ModelOverrides(shadow=ALWAYS)},
    )
    ask(memory, 2)
    memory.work()
    assert counts(memory).rows == {"rows": 2, "equal": 0, "labelled": 2, "agreeing": 0}


def test_the_numbers_are_exported() -> None:
    memory = server(close)
    ask(memory, 2)
    memory.work()
    metrics = memory.server.metrics.render().decode()
    assert 'batcher_shadow_requests_total{model="m",outcome="same",version="5"} 1.0' in metrics
    assert 'batcher_shadow_rows_total{found="equal",model="m",version="5"} 2.0' in metrics
    assert 'batcher_shadow_seconds_count{answer="shadow",model="m",version="5"} 1.0' in metrics
