"""`preprocess` and `postprocess`.

On which thread they run, what ends them, and that nothing else changes for a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from threading import Event, get_ident
from typing import Any

import numpy as np
import pytest
import torch
from twisted.internet.defer import CancelledError, Deferred

from batcher.core.spec import Array
from batcher.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelContractError,
    ModelError,
    ModelLoadError,
    QueueFull,
    TooLarge,
    Unavailable,
)
from tests.batching.test_failure_log import Logged
from tests.support.crossing import PATIENCE
from tests.support.models import RecordingModel, checked, double, model_spec, rows, tensor
from tests.support.serving import SETTINGS, Serving


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving(cpu_pool_tasks=5)  # four for one client, and one more for another
    yield serving
    serving.end()


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    with Logged() as lines:
        yield lines


class Gate:
    """A hook that waits to be let through, and then does what `act` does."""

    def __init__(self, act: Callable[[Mapping[str, Array]], Mapping[str, Any]] = dict) -> None:
        self.entered = Event()
        self.leave = Event()
        self._act = act

    def __call__(self, values: Mapping[str, Array]) -> Mapping[str, Any]:
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        return self._act(values)


def raising(error: BaseException) -> Callable[[Mapping[str, Array]], Mapping[str, Any]]:
    def hook(values: Mapping[str, Array]) -> Mapping[str, Any]:
        raise error

    return hook


def listen(deferred: Deferred[Any]) -> list[Any]:
    """Return a list that will hold the result of `deferred`."""
    fired: list[Any] = []
    deferred.addBoth(fired.append)
    return fired


def test_hooks_run_on_the_pool_not_on_the_loop_and_not_on_the_inference_thread(
    serving: Serving,
) -> None:
    threads: dict[str, int] = {}

    def noting(name: str, act: Callable[[Mapping[str, Array]], Mapping[str, Any]]) -> Any:
        def run(values: Mapping[str, Array]) -> Mapping[str, Any]:
            threads[name] = get_ident()
            return act(values)

        return run

    serving.add_ready(
        preprocess=noting("preprocess", lambda inputs: {"x": inputs["x"] + 1}),
        predict=noting("predict", double),
        postprocess=noting("postprocess", lambda outputs: {"y": outputs["y"] - 1}),
    )
    answer = serving.infer(1, 2)
    answer.addCallback(lambda response: threads.setdefault("answer", get_ident()) and response)
    assert serving.values(answer) == [3, 5]
    assert threads["preprocess"] == threads["postprocess"]
    assert threads["answer"] == serving.loop.thread
    assert len(set(threads.values())) == 3


def test_hooks_see_one_request_at_a_time_and_the_model_a_batch_of_them(serving: Serving) -> None:
    seen: list[int] = []
    gate = Gate()

    def count(values: Mapping[str, Array]) -> Mapping[str, Any]:
        seen.append(len(next(iter(values.values()))))
        return values

    serving.add_ready("held", preprocess=gate)
    serving.add_ready(
        preprocess=count,
        postprocess=count,
        predict=lambda inputs: (seen.append(-len(inputs["x"])), double(inputs))[1],
    )
    held = listen(serving.infer(0, model="held"))
    answers = [serving.server.infer("m", {"x": rows(*values)}) for values in ((1,), (2, 3))]
    gate.leave.set()
    results = [listen(answer) for answer in answers]
    while not (held and all(results)):
        serving.loop.step()
    assert sorted(seen) in ([-3, 1, 1, 2, 2], [-2, -1, 1, 1, 2, 2])


def test_preprocess_may_change_names_dtypes_and_shapes(serving: Serving) -> None:
    spec = model_spec(inputs=(tensor("text", "BYTES", (1,)),))
    serving.add_ready(
        spec=spec,
        preprocess=lambda inputs: {
            "x": np.array([[len(text[0])] * 4 for text in inputs["text"]], "<f4")
        },
    )
    text = np.array([[b"four"], [b"fifth"]], dtype=object)
    assert serving.values(serving.infer(inputs={"text": text})) == [8, 10]


def windows(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return each element of `x` as a row, and the row of the request that the element is of."""
    x = inputs["x"]
    return {"x": x.reshape(-1, 1), "row": np.arange(len(x)).repeat(x.shape[1])}


def test_rows_that_preprocess_has_made_may_be_folded_back_by_postprocess(serving: Serving) -> None:
    def fold(outputs: Mapping[str, Array]) -> dict[str, Array]:
        count = outputs["row"].max() + 1
        return {"y": np.bincount(outputs["row"], outputs["x"][:, 0], count).astype("<f4")}

    serving.add_ready(
        spec=model_spec(outputs=(tensor("y", "FP32", ()),)),
        settings=SETTINGS.model_copy(update={"max_batch_size": 3}),
        preprocess=windows,
        predict=lambda inputs: inputs,
        postprocess=fold,
    )
    answers = [serving.infer(1, 2), serving.infer(3), serving.infer(4, 5, 6)]
    found = [serving.response(answer).outputs["y"].tolist() for answer in answers]
    assert found == [[4, 8], [12], [16, 20, 24]]


def test_a_postprocess_that_leaves_a_row_unanswered_breaks_its_contract(serving: Serving) -> None:
    serving.add_ready(preprocess=windows, postprocess=lambda outputs: {"y": outputs["y"][:3]})
    text = "expected 2 rows, as the request has, or 8, as preprocess has made of them; got 3"
    error = serving.loop.error_of(serving.infer(1, 2))
    assert isinstance(error, ModelContractError)
    assert text in str(error)


def test_postprocess_gives_what_the_specification_promises(serving: Serving) -> None:
    serving.add_ready(
        spec=model_spec(outputs=(tensor("label", "INT64", ()),)),
        postprocess=lambda outputs: {"label": outputs["y"].argmax(axis=1)},
        predict=lambda inputs: {"y": inputs["x"][:, ::-1] * [1, 2, 3, 4]},
    )
    assert serving.response(serving.infer(1, 2)).outputs["label"].tolist() == [3, 3]


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
def test_a_hook_that_raises_fails_its_own_request_only(serving: Serving, hook: str) -> None:
    def fail_on_two(values: Mapping[str, Array]) -> Mapping[str, Any]:
        if 2 in next(iter(values.values()))[:, 0] % 10:
            raise ValueError("a two")
        return values

    serving.add_ready(predict=lambda inputs: {"y": inputs["x"]}, **{hook: fail_on_two})
    answers = [serving.infer(value) for value in (1, 2, 3)]
    results = [listen(answer) for answer in answers]
    while not all(results):
        serving.loop.step()
    error = results[1][0].value
    assert isinstance(error, ModelError)
    assert isinstance(error.__cause__, ValueError)
    assert [float(result[0].outputs["y"][0, 0]) for result in (results[0], results[2])] == [1, 3]


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        CancelledError(),
        StopIteration(),
    ],
    ids=["exit", "interrupt", "generator", "asyncio", "twisted", "iteration"],
)
def test_a_hook_that_raises_what_ends_others_is_a_failing_model_like_any_other(
    serving: Serving, hook: str, error: BaseException
) -> None:
    serving.add_ready(**{hook: raising(error)})
    told = serving.loop.error_of(serving.infer(1))
    assert type(told) is ModelError
    assert told.__cause__ is error


@pytest.mark.parametrize("given", [None, 1, [], "text"], ids=repr)
def test_a_preprocess_that_gives_no_mapping_is_told_so(serving: Serving, given: Any) -> None:
    serving.add_ready(preprocess=lambda _: given)
    error = serving.loop.error_of(serving.infer(1))
    assert isinstance(error, ModelContractError)
    assert (
        str(error)
        == f"model 'm': preprocess: expected a mapping of name to array; got {type(given).__name__}"
    )


@pytest.mark.parametrize("given", [None, 1, [], "text"], ids=repr)
def test_a_postprocess_that_gives_no_outputs_is_told_so(serving: Serving, given: Any) -> None:
    serving.add_ready(postprocess=lambda _: given)
    error = serving.loop.error_of(serving.infer(1))
    assert isinstance(error, ModelContractError)
    assert str(error).startswith("model 'm': postprocess: ")


@pytest.mark.parametrize(
    "given",
    [
        lambda y: {"y": y.astype("<f8")},
        lambda y: {"y": list(y)},
        lambda y: y,
        lambda y: [row.tolist() for row in y],
        lambda y: [{"y": row, "more": None} for row in y],
        lambda y: {"y": torch.from_numpy(y.copy()).requires_grad_()},
    ],
    ids=["float64", "rows", "an array", "a list of rows", "a dict a row", "a tensor"],
)
def test_a_postprocess_may_give_whatever_predict_may(serving: Serving, given: Any) -> None:
    serving.add_ready(postprocess=lambda outputs: given(outputs["y"]))
    found = serving.loop.wait_for(serving.infer(1, 2)).outputs["y"]
    assert found.dtype == np.dtype("<f4")
    assert found[:, 0].tolist() == [2, 4]


def test_a_preprocess_that_gives_what_is_no_array_fails_its_request(serving: Serving) -> None:
    serving.add_ready(preprocess=lambda _: {"x": [[1], [2, 3]]})
    assert type(serving.loop.error_of(serving.infer(1))) is ModelContractError


def test_a_postprocess_gets_ragged_rows_and_gives_some(serving: Serving) -> None:
    def widen(outputs: Any) -> Any:
        return {"y": [np.arange(int(row[0])) for row in outputs["y"]]}

    spec = model_spec(outputs=(tensor("y", "FP32", (-1,)),))
    serving.add_ready(spec=spec, postprocess=widen)
    found = serving.loop.wait_for(serving.infer(1, 2)).outputs["y"]
    assert [row.tolist() for row in found] == [[0, 1], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        ({}, "got none"),
        ({"x": 1.0}, "got arrays of 0 rows"),
        ({"x": rows(1), "z": rows(1, 2)}, "got arrays of 1, 2 rows"),
        (
            {"x": np.array(["text"], object)},
            "'x' from preprocess: expected elements that are bytes; got str:"
            " write `.encode()` at each text",
        ),
    ],
    ids=["nothing", "a scalar", "uneven", "text"],
)
def test_a_preprocess_whose_inputs_cannot_be_run_is_at_fault_and_not_the_client(
    serving: Serving, inputs: dict[str, Any], got: str
) -> None:
    serving.add_ready(preprocess=lambda _: inputs)
    error = serving.loop.error_of(serving.infer(1))
    assert isinstance(error, ModelContractError)
    assert str(error).endswith(got)


def test_a_model_with_postprocess_that_gives_nothing_breaks_its_contract(serving: Serving) -> None:
    serving.add_ready(predict=lambda inputs: {}, postprocess=dict)
    assert isinstance(serving.loop.error_of(serving.infer(1)), ModelContractError)


def test_a_preprocess_that_refuses_its_input_is_told_as_it_says(serving: Serving) -> None:
    serving.add_ready(preprocess=raising(InvalidInput("text: expected UTF-8")))
    error = serving.loop.error_of(serving.infer(1))
    assert isinstance(error, InvalidInput)
    assert str(error) == "text: expected UTF-8"


class TestFaultsOfModels:
    """What code of a model raises is counted by its stage, and logged with its own line."""

    def exceptions(self, serving: Serving) -> dict[str, int]:
        return {**serving.server.metrics.model("m", "1").exceptions}

    @pytest.mark.parametrize("stage", ["preprocess", "predict", "postprocess"])
    def test_of_a_request_are_counted_and_logged(
        self, serving: Serving, log_lines: list[str], stage: str
    ) -> None:
        hooks: dict[str, Any] = {stage: raising(ValueError("bad row"))}
        serving.add_ready(**hooks)
        for _ in range(2):
            serving.loop.error_of(serving.infer(1))
        assert self.exceptions(serving) == {stage: 2}
        (line,) = log_lines
        assert line.startswith("model m/1: ")
        assert "ValueError: bad row" in line
        assert f'"{__file__}", line {raising.__code__.co_firstlineno + 2}, in hook' in line
        assert f'batcher_model_exceptions_total{{model="m",stage="{stage}",version="1"}} 2.0' in (
            serving.server.metrics.render().decode()
        )

    @pytest.mark.parametrize("stage", ["preprocess", "predict", "postprocess"])
    def test_a_request_that_the_model_refuses_is_none(
        self, serving: Serving, log_lines: list[str], stage: str
    ) -> None:
        hooks: dict[str, Any] = {stage: raising(InvalidInput("text: expected UTF-8"))}
        serving.add_ready(**hooks)
        assert isinstance(serving.loop.error_of(serving.infer(1)), InvalidInput)
        assert self.exceptions(serving).get(stage, 0) == 0
        assert log_lines == []

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (ModelLoadError("no such file", "import"), {"import": 1}),
            (ValueError("a loader of a program's own"), {"load": 1}),
            (ModelLoadError("expected the model within 600 s"), {}),
        ],
    )
    def test_of_a_load_are_counted_by_the_stage(
        self, serving: Serving, error: Exception, expected: dict[str, int]
    ) -> None:
        serving.loop.error_of(serving.add(load=raising(error)))
        assert self.exceptions(serving) == expected


def test_what_postprocess_gives_is_what_has_to_be_finite(serving: Serving) -> None:
    def clean(outputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.where(outputs["y"] < 0, np.nan, np.nan_to_num(outputs["y"], nan=5.0))}

    finite = SETTINGS.model_copy(update={"finite_outputs": True})
    serving.add_ready(postprocess=clean, settings=finite)
    serving.add_ready("any", postprocess=clean)
    answers = [listen(serving.infer(*values)) for values in ((1, np.nan), (2, -3), (4,))]
    while not all(answers):
        serving.loop.step()
    error = answers[1][0].value
    assert isinstance(error, ModelContractError)
    assert "expected finite numbers in output 'y'" in str(error)
    assert [answers[number][0].outputs["y"][:, 0].tolist() for number in (0, 2)] == [[2, 5], [8]]
    assert np.isnan(serving.values(serving.infer(-3, model="any"))).all()


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
def test_a_hook_cannot_raise_what_is_the_server_s_to_say(serving: Serving, hook: str) -> None:
    serving.add_ready(**{hook: raising(QueueFull("full"))})
    error = serving.loop.error_of(serving.infer(1))
    assert type(error) is ModelError


@pytest.mark.parametrize(
    "outputs",
    [{}, {"y": rows(1)}, {"y": rows(1, 2).astype("<c8")}],
    ids=["nothing", "a row less", "another dtype"],
)
def test_a_postprocess_that_breaks_the_promise_is_told_so(
    serving: Serving, outputs: dict[str, Array]
) -> None:
    serving.add_ready(postprocess=lambda _: outputs)
    assert isinstance(serving.loop.error_of(serving.infer(1, 2)), ModelContractError)


def test_a_full_pool_refuses_as_a_failure(serving: Serving) -> None:
    gate = Gate()
    serving.add_ready(preprocess=gate)
    waiting = [serving.infer(value) for value in range(4)]
    error = serving.loop.error_of(serving.infer(9))
    assert isinstance(error, QueueFull)
    assert error.retry_after == 1
    gate.leave.set()
    assert [serving.values(answer) for answer in waiting] == [[0], [2], [4], [6]]


def test_a_pool_that_is_full_after_the_model_ran_asks_for_no_repeat(serving: Serving) -> None:
    gate = Gate()
    serving.add_ready(postprocess=gate)
    waiting = [serving.infer(value) for value in range(4)]
    error = serving.loop.error_of(serving.infer(9))
    assert isinstance(error, QueueFull)
    assert error.retry_after == 0
    gate.leave.set()
    assert [serving.values(answer) for answer in waiting] == [[0], [2], [4], [6]]


def test_a_request_cancelled_before_its_preprocess_never_reaches_the_model(
    serving: Serving,
) -> None:
    gate, seen = Gate(), []
    serving.add_ready(
        preprocess=gate, predict=lambda inputs: (seen.extend(inputs["x"][:, 0]), double(inputs))[1]
    )
    running, waiting = serving.infer(1), serving.infer(2)
    assert gate.entered.wait(PATIENCE)
    gone = listen(waiting)
    waiting.cancel()
    assert isinstance(gone[0].value, CancelledError)
    gate.leave.set()
    assert serving.values(running) == [2]
    assert seen == [1]


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
def test_a_request_cancelled_during_a_hook_ends_at_once(serving: Serving, hook: str) -> None:
    gate = Gate()
    serving.add_ready(**{hook: gate})
    answer = serving.infer(1)
    if hook == "postprocess":
        serving.loop.step()
    assert gate.entered.wait(PATIENCE)
    gone = listen(answer)
    answer.cancel()
    assert isinstance(gone[0].value, CancelledError)
    gate.leave.set()


def test_a_request_cancelled_while_its_rows_wait_leaves_the_queue(serving: Serving) -> None:
    serving.add_ready(preprocess=dict)
    answer = serving.server.infer("m", {"x": rows(1)})
    gone = listen(answer)
    scheduler = serving.server.find("m").scheduler
    function, arguments = serving.loop._calls.get(
        timeout=PATIENCE
    )  # the call without the turn of the clock after it
    function(*arguments)
    assert scheduler.queue_rows == 1
    answer.cancel()
    assert scheduler.queue_rows == 0
    assert isinstance(gone[0].value, CancelledError)


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
def test_a_deadline_is_kept_while_a_hook_is_stuck(serving: Serving, hook: str) -> None:
    gate = Gate()
    serving.add_ready(**{hook: gate})
    answer = serving.infer(1, deadline=8.0)
    if hook == "postprocess":
        serving.loop.step()
    assert gate.entered.wait(PATIENCE)
    late = listen(answer)
    serving.loop.clock.advance(7.0)
    assert late == []
    serving.loop.clock.advance(1.0)
    assert isinstance(late[0].value, DeadlineExceeded)
    gate.leave.set()


def test_one_deadline_covers_preprocess_and_model(serving: Serving) -> None:
    gate = Gate()
    serving.add_ready(preprocess=gate)
    answer = listen(serving.infer(1, deadline=8.0))
    assert gate.entered.wait(PATIENCE)
    serving.loop.clock.advance(7.0)
    gate.leave.set()
    serving.loop.step()  # preprocess is done: its rows are with the model
    serving.loop.clock.advance(1.0)
    assert isinstance(answer[0].value, DeadlineExceeded)


@pytest.mark.parametrize("hook", ["preprocess", "postprocess"])
def test_a_drain_waits_for_requests_that_are_in_a_hook_and_answers_them(
    serving: Serving, hook: str
) -> None:
    gate = Gate()
    serving.add_ready(**{hook: gate})
    answer = listen(serving.infer(1))
    if hook == "postprocess":
        serving.loop.step()
    assert gate.entered.wait(PATIENCE)
    ended = listen(serving.server.drain())
    assert not ended, "a request that was taken has no answer yet"
    gate.leave.set()
    while not answer:
        serving.loop.step()
    assert not hasattr(answer[0], "value"), (
        f"a request that was taken is answered; this one got: {answer[0]}"
    )
    assert ended


def test_a_request_that_the_pool_refused_does_not_hold_up_a_drain(serving: Serving) -> None:
    gate = Gate()
    serving.add_ready(preprocess=gate)
    answers = [listen(serving.infer(value)) for value in range(4)]
    assert isinstance(listen(serving.infer(9))[0].value, QueueFull)
    ended = listen(serving.server.drain())
    gate.leave.set()
    while not all(answers):
        serving.loop.step()
    assert [float(answer[0].outputs["y"][0, 0]) for answer in answers] == [0, 2, 4, 6]
    assert ended == [None]


def test_a_request_cancelled_in_a_hook_does_not_hold_up_a_drain(serving: Serving) -> None:
    gate = Gate()
    serving.add_ready(preprocess=gate)
    answer = serving.infer(1)
    assert gate.entered.wait(PATIENCE)
    ended = listen(serving.server.drain())
    gone = listen(answer)
    answer.cancel()
    assert gone
    assert ended == [None]
    gate.leave.set()


def test_a_stop_ends_requests_that_wait_for_a_hook_and_those_in_one_when_it_returns(
    serving: Serving,
) -> None:
    gate = Gate()
    serving.add_ready(preprocess=gate)
    running, waiting = listen(serving.infer(1)), listen(serving.infer(2))
    assert gate.entered.wait(PATIENCE)
    serving.server.stop()
    gate.leave.set()
    while not (running and waiting):
        serving.loop.step()
    assert isinstance(running[0].value, Unavailable)
    assert isinstance(waiting[0].value, Unavailable)


def test_a_batch_whose_client_has_left_leaves_nothing_for_the_hooks_of_the_next_request(
    serving: Serving,
) -> None:
    gate, kept = Gate(), list[float]()

    def preprocess(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        kept.clear()
        return inputs

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        gate(inputs)
        kept.append(float(inputs["x"][0, 0]))
        return double(inputs)

    def postprocess(outputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": outputs["y"] * 0 + sum(kept)}

    serving.add_ready(preprocess=preprocess, predict=predict, postprocess=postprocess)
    serving.add_ready("other", preprocess=dict)
    gone, answer = serving.infer(1), serving.infer(2)
    serving.loop.run_until(gate.entered.is_set)
    gone.cancel()
    listen(gone)
    # On the pool's one thread: what is prepared now, is prepared before that.
    serving.values(serving.infer(0, model="other"))
    gate.leave.set()
    assert serving.values(answer) == [2]


def test_a_request_of_more_rows_than_a_batch_is_refused_where_predict_reads_what_a_hook_leaves(
    serving: Serving,
) -> None:
    class Named:
        names: list[float]

        def preprocess(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            self.names = list(inputs["x"][:, 0])
            return inputs

        def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            return {"y": inputs["x"] + np.array(self.names)[: len(inputs["x"]), np.newaxis]}

    own = Named()
    model = RecordingModel(model_spec(), own.predict)
    model.preprocess, model.author = own.preprocess, own
    settings = SETTINGS.model_copy(update={"max_batch_size": 2})
    serving.add_ready(load=lambda progress: checked(model), settings=settings)
    assert serving.values(serving.infer(1, 2)) == [2, 4]
    error = serving.loop.error_of(serving.infer(1, 2, 3))
    assert isinstance(error, TooLarge)
    assert "at most 2 rows of one length" in str(error)
    assert serving.values(serving.infer(4)) == [8]
