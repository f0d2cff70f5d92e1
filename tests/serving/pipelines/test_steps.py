"""Requests through the steps of a pipeline: values, rows, errors, deadlines, cancellation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred

from batcher.core.element_sizes import SizedArrays
from batcher.core.request import InferenceRequest, InferenceResponse, nbytes_of
from batcher.core.spec import Array
from batcher.errors import DeadlineExceeded, InvalidInput, ModelError, QueueFull, TooLarge
from batcher.serving.stages.stage import GoOn, Stage
from tests.support.gate import Gate
from tests.support.models import Predict, model_spec, rows, tensor
from tests.support.pipelines import CASCADE, CHAIN, Pipelines, of_two
from tests.support.serving import SETTINGS


def closed(gate: Gate, factor: float = 1) -> Predict:
    """Return a model that waits at `gate`, which is closed."""
    gate.close()

    def predict(inputs: Mapping[str, Array]) -> dict[str, Any]:
        gate.stop()
        return {"y": inputs["x"] * factor}

    return predict


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Pipelines]:
    pipelines = of_two(tmp_path)
    yield pipelines
    pipelines.end()


def test_a_request_goes_through_both_models(two: Pipelines) -> None:
    two.ready(CHAIN)

    assert two.values(two.infer(1, 2, 3, model="p")) == [4, 8, 12]


def test_an_answer_names_the_pipeline_and_has_the_times_of_all_steps(two: Pipelines) -> None:
    two.ready(CHAIN)

    response = two.response(two.infer(1, 2, model="p"))

    assert (response.model, response.version, response.batch_size) == ("p", "1", 2)
    assert response.compute > 0
    assert [(name, size) for name, _, _, size in response.steps] == [("first", 2), ("second", 2)]
    assert sum(compute for _, _, compute, _ in response.steps) == response.compute


def test_only_unsure_rows_go_to_the_second_model(tmp_path: Path) -> None:
    seen: list[float] = []

    def large(inputs: Mapping[str, Array]) -> dict[str, Any]:
        seen.extend(inputs["x"][:, 0].tolist())
        return {"y": inputs["x"] * 100}

    pipelines = of_two(tmp_path, two=large)
    pipelines.ready(CASCADE)

    assert pipelines.values(pipelines.infer(1, 7, 2, 9, model="p")) == [100, 14, 200, 18]
    assert pipelines.values(pipelines.infer(8, 9, model="p")) == [16, 18]
    assert pipelines.values(pipelines.infer(3, model="p")) == [300]
    assert seen == [1, 2, 3]
    counts = pipelines.server.metrics.pipelines.of("p", "1").of("large")
    assert (counts.run, counts.skipped, counts.dropped) == (3, 4, 0)
    pipelines.end()


def test_rows_of_many_requests_share_the_batches_of_each_model(tmp_path: Path) -> None:
    gate = Gate()
    sizes: list[int] = []

    def second(inputs: Mapping[str, Array]) -> dict[str, Any]:
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"]}

    pipelines = of_two(tmp_path, closed(gate), second)
    pipelines.ready(CHAIN)
    answers = [pipelines.infer(value, model="p") for value in range(5)]
    gate.open()

    assert [pipelines.values(answer) for answer in answers] == [[0], [1], [2], [3], [4]]
    assert sizes[-1] == 4
    pipelines.end()


def test_a_row_that_fails_in_the_second_step_fails_its_own_request_alone(tmp_path: Path) -> None:
    def second(inputs: Mapping[str, Array]) -> dict[str, Any]:
        if (inputs["x"] == 4).any():
            raise ValueError("four")
        return {"y": inputs["x"]}

    pipelines = of_two(tmp_path, two=second)
    pipelines.ready(CHAIN)
    answers = [pipelines.infer(value, model="p") for value in (1, 2, 3)]

    assert isinstance(pipelines.loop.error_of(answers[1]), ModelError)
    assert [pipelines.values(answers[0]), pipelines.values(answers[2])] == [[2], [6]]
    assert pipelines.server.metrics.pipelines.of("p", "1").of("second").dropped == 1
    pipelines.end()


def test_a_request_that_is_cancelled_leaves_the_step_that_it_waits_in(tmp_path: Path) -> None:
    gate = Gate()
    pipelines = of_two(tmp_path, closed(gate))
    version = pipelines.ready(CHAIN)
    answer = pipelines.infer(1, model="p")
    waiting = pipelines.infer(2, model="p")

    waiting.cancel()
    answer.cancel()
    gate.open()

    assert isinstance(pipelines.loop.error_of(waiting), CancelledError)
    assert isinstance(pipelines.loop.error_of(answer), CancelledError)
    assert pipelines.server.find("one").scheduler.queue_rows == 0
    assert pipelines.loop.wait_for(version.drain()) is None
    assert pipelines.server.metrics.model("p", "1").cancelled_rows["in_flight"] == 2
    pipelines.end()


def test_one_deadline_holds_for_all_steps(tmp_path: Path) -> None:
    gate = Gate()
    pipelines = of_two(tmp_path, two=closed(gate))
    pipelines.ready(CHAIN)
    answer = pipelines.infer(1, model="p", deadline=5.0)
    gate.wait_reached(pipelines.loop)

    pipelines.loop.clock.advance(6)

    assert isinstance(pipelines.loop.error_of(answer), DeadlineExceeded)
    gate.open()
    pipelines.end()


class Noting(Stage):
    """Notes the priority of every request."""

    def __init__(self, priorities: list[int]) -> None:
        """Note in `priorities`."""
        self._priorities = priorities

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Note, and go on."""
        self._priorities.append(request.parameters.priority)
        return go_on(request)


def test_the_priority_is_handed_on(two: Pipelines) -> None:
    two.ready(CHAIN)
    taken: list[int] = []
    for name in ("one", "two"):
        two.server.find(name).set_name_stages((Noting(taken),))

    for priority in (0, 1, 3):
        two.response(two.infer(1, model="p", priority=priority))
    bulk = two.infer(1, model="p", priority=4)

    assert taken == [2, 2, 1, 1, 3, 3, 4]
    bulk.cancel()
    assert isinstance(two.loop.error_of(bulk), CancelledError)


def test_what_does_not_fit_the_pipeline_is_refused_as_for_a_model(two: Pipelines) -> None:
    two.ready(CHAIN)

    error = two.loop.error_of(two.infer(model="p", inputs={"z": rows(1)}))

    assert isinstance(error, InvalidInput)


def test_rows_on_their_way_are_bounded_at_the_door(tmp_path: Path) -> None:
    gate = Gate()
    pipelines = of_two(tmp_path, closed(gate))
    pipelines.ready(CHAIN, settings=SETTINGS.model_copy(update={"max_queue_rows": 3}))
    answer = pipelines.infer(1, 2, model="p")

    assert isinstance(pipelines.loop.error_of(pipelines.infer(1, 2, model="p")), QueueFull)
    assert isinstance(pipelines.loop.error_of(pipelines.infer(1, 2, 3, 4, model="p")), TooLarge)
    gate.open()
    assert pipelines.values(answer) == [2, 4]
    rejected = pipelines.server.metrics.model("p", "1").rejected_rows
    assert dict(rejected) == {"queue_full": 2, "too_large": 4}
    pipelines.end()


def test_a_full_queue_in_the_middle_fails_the_request_without_advice_to_repeat_it(
    tmp_path: Path,
) -> None:
    gate = Gate()
    pipelines = Pipelines(tmp_path)
    pipelines.model("one")
    small = SETTINGS.model_copy(update={"max_queue_rows": 1, "pipeline_depth": 1})
    pipelines.model("two", closed(gate), settings=small)
    pipelines.ready(CHAIN)
    busy = [pipelines.infer(1, model="two")]
    gate.wait_reached(pipelines.loop)
    busy.append(pipelines.infer(1, model="two"))

    error = pipelines.loop.error_of(pipelines.infer(1, model="p"))

    assert isinstance(error, QueueFull)
    assert error.retry_after == 0
    gate.open()
    for each in busy:
        pipelines.response(each)
    pipelines.end()


@pytest.mark.parametrize(("steps", "advice"), [(("one", "two"), False), (("two", "one"), True)])
def test_a_full_queue_beside_a_step_that_may_run_gives_no_advice_to_repeat(
    tmp_path: Path, steps: tuple[str, str], advice: bool
) -> None:
    text = """
format: pipeline
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs:
  - {name: y, dtype: FP32, shape: [4], from: one.y}
  - {name: z, dtype: FP32, shape: [4], from: two.y}
steps:
"""
    text += "".join(f"  - {{name: {name}, model: {name}, inputs: {{x: x}}}}\n" for name in steps)
    gate = Gate()
    pipelines = Pipelines(tmp_path)
    pipelines.model("one")
    small = SETTINGS.model_copy(update={"max_queue_rows": 1, "pipeline_depth": 1})
    pipelines.model("two", closed(gate), settings=small)
    pipelines.ready(text)
    busy = [pipelines.infer(1, model="two")]
    gate.wait_reached(pipelines.loop)
    busy.append(pipelines.infer(1, model="two"))

    error = pipelines.loop.error_of(pipelines.infer(1, model="p"))

    assert isinstance(error, QueueFull)
    assert bool(error.retry_after) is advice
    gate.open()
    for each in busy:
        pipelines.response(each)
    pipelines.end()


def test_requests_of_a_pipeline_are_counted_as_its_own(two: Pipelines) -> None:
    two.ready(CHAIN)
    two.response(two.infer(1, 2, model="p"))

    statistics = two.server.metrics.model("p", "1").statistics
    exported = two.server.metrics.render().decode()

    assert (statistics.success.count, statistics.inference_count) == (1, 2)
    row = 'batcher_pipeline_rows_total{model="p",outcome="run",step="second",version="1"} 2.0'
    assert row in exported


def test_a_drain_lets_requests_of_a_pipeline_go_to_their_next_step(tmp_path: Path) -> None:
    gate = Gate()
    pipelines = of_two(tmp_path, closed(gate))
    pipelines.ready(CHAIN)
    answer = pipelines.infer(3, model="p")
    drained = pipelines.server.drain()
    gate.open()

    assert pipelines.values(answer) == [6]
    assert pipelines.loop.wait_for(drained) is None
    pipelines.end()


def test_the_end_of_the_server_fails_what_is_on_its_way(tmp_path: Path) -> None:
    gate = Gate()
    pipelines = of_two(tmp_path, closed(gate))
    pipelines.ready(CHAIN)
    answer = pipelines.infer(3, model="p")

    stopped = pipelines.server.stop()
    gate.open()

    assert pipelines.loop.error_of(answer)
    pipelines.loop.wait_for(stopped)


def test_a_request_of_many_rows_keeps_their_order(two: Pipelines) -> None:
    two.ready(CASCADE)

    values = two.values(two.infer(*range(11), model="p"))

    assert values == [2.0 * value for value in range(11)]
    assert np.all(np.diff(values) > 0)


def test_the_bytes_of_texts_are_not_added_up_for_each_step(tmp_path: Path) -> None:
    pipelines = Pipelines(tmp_path)
    spec = model_spec((tensor("x", "BYTES", ()),), (tensor("y", "BYTES", ()),), name="one")
    pipelines.model("one", lambda inputs: {"y": inputs["x"]}, spec=spec)
    pipelines.model("two", lambda inputs: {"y": inputs["x"]}, spec=replace(spec, name="two"))
    seen: list[InferenceRequest] = []
    pipelines.server.find("two").set_version_stages([Keeping(seen)])
    text = CHAIN.replace("FP32, shape: [4]", "BYTES, shape: []")
    pipelines.ready(text)

    texts = np.array([b"one", b"three"], object)
    response = pipelines.response(pipelines.infer(model="p", inputs={"x": texts}))

    assert response.outputs["y"].tolist() == [b"one", b"three"]
    inputs = seen[0].inputs
    assert isinstance(inputs, SizedArrays)
    assert inputs.nbytes == nbytes_of(dict(inputs))
    pipelines.end()


class Keeping(Stage):
    """Keeps every request."""

    def __init__(self, seen: list[InferenceRequest]) -> None:
        """Keep them in `seen`."""
        self._seen = seen

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Keep it, and go on."""
        self._seen.append(request)
        return go_on(request)
