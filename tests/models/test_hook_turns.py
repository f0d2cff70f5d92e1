"""Hooks that write into what they keep take turns, so that they never mix rows of two requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import numpy as np
import pytest

from batcher.core.ragged import ragged
from batcher.core.spec import Array
from batcher.models.hook_contract import run_postprocess, run_preprocess
from batcher.models.hook_turns import (
    EQUAL_CALLS,
    MOST_CALLS,
    WatchedHook,
    arrays_of,
    turns_of,
    watch_hooks,
    watched,
)
from batcher.models.warmup import warm_up
from tests.support.models import RecordingModel, checked, rows

Inputs = Mapping[str, Array]
Make = Callable[[Inputs], dict[str, Any]]


def keeping(name: str) -> Make:
    """Return a hook that returns its values as `name`, always in the same buffer."""
    buffer = np.zeros((64, 4), "f4")

    def hook(values: Inputs) -> dict[str, Any]:
        array = next(iter(values.values()))
        buffer[: len(array)] = array
        return {name: buffer[: len(array)]}

    return hook


def keeping_each_size(name: str) -> Make:
    """Return a hook that has a buffer for each number of rows."""
    buffers: dict[int, Array] = {}

    def hook(values: Inputs) -> dict[str, Any]:
        array = next(iter(values.values()))
        buffer = buffers.setdefault(len(array), np.zeros(array.shape, "f4"))
        buffer[...] = array
        return {name: buffer}

    return hook


def keeping_two(name: str) -> Make:
    """Return a hook that uses two buffers in turn."""
    buffers = [np.zeros((64, 4), "f4"), np.zeros((64, 4), "f4")]

    def hook(values: Inputs) -> dict[str, Any]:
        array = next(iter(values.values()))
        buffers.reverse()
        buffers[0][: len(array)] = array
        return {name: buffers[0][: len(array)]}

    return hook


def fresh(values: Inputs) -> dict[str, Any]:
    return {"x": values["x"] * 2}


def returning_what_came(values: Inputs) -> dict[str, Any]:
    return dict(values)


def with_constant(values: Inputs) -> dict[str, Any]:
    return {"x": values["x"] * 2, "mask": CONSTANT[: len(values["x"])]}


CONSTANT = np.ones((64, 4), "f4")
CONSTANT.flags.writeable = False


class Hooks:
    """A model of somebody else, whose `preprocess` writes into the model itself."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = np.zeros(64)
        self.tables: Any = None

    def leaving(self, values: Inputs) -> dict[str, Any]:
        self.count += len(values["x"])
        return {"x": values["x"] + self.count}

    def writing(self, values: Inputs) -> dict[str, Any]:
        self.sums[: len(values["x"])] = values["x"].sum(1) + 1
        return {"x": values["x"] / self.sums[: len(values["x"]), None]}

    def late(self, values: Inputs) -> dict[str, Any]:
        if self.tables is None:
            self.tables = np.ones(4, "f4")
        return {"x": values["x"] * self.tables}


def runs_alone(hook: Any) -> bool:
    """Return whether `hook` takes a turn for a call."""
    assert isinstance(hook, WatchedHook)
    taken: list[bool] = []

    @contextmanager
    def turn() -> Iterator[None]:
        taken.append(True)
        yield

    hook.turns.lock = turn()  # type: ignore[assignment]
    hook.arrays({"x": rows(1), "y": rows(1)}, dict)
    return bool(taken)


@pytest.mark.parametrize("make", [keeping, keeping_each_size, keeping_two])
@pytest.mark.parametrize("warmup", [True, False])
def test_what_a_hook_returned_for_one_request_is_not_changed_by_the_next(
    make: Callable[[str], Make], warmup: bool
) -> None:
    model = RecordingModel()
    model.preprocess, model.postprocess = make("x"), make("y")
    ready = checked(model)
    if warmup:
        warm_up(ready, 4, print)
    before, after = model.preprocess, model.postprocess
    assert before is not None
    assert after is not None
    made = [run_preprocess(before, {"x": rows(k)}, model.spec)[0]["x"] for k in range(5)]
    assert [float(each[0, 0]) for each in made] == [0, 1, 2, 3, 4]
    made = [run_postprocess(after, {"y": rows(k)}, model.spec, 1)["y"] for k in range(5)]
    assert [float(each[0, 0]) for each in made] == [0, 1, 2, 3, 4]
    assert runs_alone(before), "even for good"


@pytest.mark.parametrize("hook", [Hooks().leaving, Hooks().writing])
def test_a_hook_that_writes_into_its_model_takes_turns_and_the_attribute_is_named(
    hook: Make,
) -> None:
    model = RecordingModel()
    model.preprocess, model.postprocess = hook, lambda outputs: {"y": outputs["y"] + 1}
    warm_up(checked(model), 4, print)
    turns = turns_of(model)  # type: ignore[arg-type]
    assert turns is not None
    assert list(turns.notes) == ["preprocess"]
    note = turns.notes["preprocess"]
    assert "preprocess writes into self." in note
    assert "self.count" in note or "self.sums" in note
    assert runs_alone(model.preprocess)
    assert runs_alone(model.postprocess), "which reads what the other writes"


@pytest.mark.parametrize("hook", [fresh, returning_what_came, with_constant, Hooks().late])
def test_hooks_that_keep_nothing_run_side_by_side_after_warm_up(hook: Make) -> None:
    model = RecordingModel()
    model.preprocess, model.postprocess = hook, lambda outputs: dict(outputs)
    warm_up(checked(model), 4, print)
    for _ in range(EQUAL_CALLS):  # warm-up calls `preprocess` once for each size
        run_preprocess(model.preprocess, {"x": rows(1)}, model.spec)
    assert not runs_alone(model.preprocess)


def test_without_warm_up_the_first_requests_run_one_at_a_time() -> None:
    hook = watched(fresh, "preprocess")
    for _ in range(EQUAL_CALLS):
        assert hook.turns.watched
        hook.arrays({"x": rows(1)}, dict)
    assert not runs_alone(hook)


def test_results_of_ever_other_shapes_are_watched_for_long_but_not_for_ever() -> None:
    hook = watched(fresh, "preprocess")
    for count in range(MOST_CALLS):
        assert hook.turns.watched
        hook.arrays({"x": rows(*range(count + 1))}, dict)
    assert not runs_alone(hook)


def test_a_step_of_a_pipeline_that_writes_into_itself_takes_turns() -> None:
    class Step:
        def __call__(self, values: Inputs) -> dict[str, Any]:
            self.twice = values["x"] * 2
            return {"x": self.twice}

    step = watched(Step(), "step 'double'")
    for _ in range(EQUAL_CALLS):
        step.arrays({"x": rows(1)}, dict)
    assert "step 'double' writes into self.twice" in step.turns.notes["step 'double'"]
    assert runs_alone(step)


class Leaving:
    """A model whose `preprocess` leaves something for `postprocess`."""

    rows = 0

    def preprocess(self, inputs: Inputs) -> dict[str, Any]:
        self.rows = len(inputs["x"])
        return dict(inputs)

    def postprocess(own, outputs: Inputs) -> dict[str, Any]:  # noqa: N805
        return {"y": outputs["y"] + 0 * own.rows}


class Counting(Leaving):
    def preprocess(self, inputs: Inputs) -> dict[str, Any]:
        self.rows += 1
        return dict(inputs)


@pytest.mark.parametrize("make", [Leaving, Counting])
def test_what_preprocess_leaves_for_postprocess_is_told_and_requests_run_alone(
    make: type[Leaving],
) -> None:
    own, model = make(), RecordingModel()
    model.preprocess, model.postprocess = own.preprocess, own.postprocess
    ready = checked(model)
    warm_up(ready, 4, print)
    turns = turns_of(model)  # type: ignore[arg-type]
    assert turns is not None
    assert "preprocess writes self.rows, which is read after it" in turns.notes["preprocess"]
    assert ready.loaded().hands_over


def test_what_predict_reads_or_leaves_is_handed_over_too() -> None:
    class Reading(Leaving):
        def predict(self, inputs: Inputs) -> dict[str, Any]:
            return {"y": inputs["x"] * self.rows}

    class Keeping(Reading):
        def predict(self, inputs: Inputs) -> dict[str, Any]:
            self.rows = len(inputs["x"])
            return dict(inputs)

    for hook, note in (("preprocess", "preprocess writes"), ("postprocess", "predict writes")):
        own, model = Reading() if hook == "preprocess" else Keeping(), RecordingModel()
        setattr(model, hook, getattr(own, hook))
        model.author = own
        ready = checked(model)
        turns = turns_of(model)  # type: ignore[arg-type]
        assert turns is not None
        assert [each.startswith(f"{note} self.rows") for each in turns.notes.values()][-1]
        assert ready.loaded().hands_over


def test_a_context_variable_is_handed_over_from_thread_to_thread() -> None:
    variable: ContextVar[int] = ContextVar("rows", default=0)

    class Own:
        def preprocess(self, inputs: Inputs) -> dict[str, Any]:
            variable.set(len(inputs["x"]))
            return dict(inputs)

        def postprocess(self, outputs: Inputs) -> dict[str, Any]:
            return {"y": outputs["y"] * variable.get()}

    own, model = Own(), RecordingModel()
    model.preprocess, model.postprocess = own.preprocess, own.postprocess
    checked(model)
    for number in (2, 3):
        made = copy_context().run(arrays_of, model.preprocess, {"x": rows(*[1] * number)}, dict)
        answer = copy_context().run(arrays_of, model.postprocess, {"y": made["x"]}, dict)
        assert answer["y"][0, 0] == number


@pytest.mark.parametrize(
    "attributes", [{"_version": np.zeros(2)}, {"_buffers": None}, {"_buffers": [1]}]
)
def test_attributes_of_any_name_are_the_models_own(attributes: dict[str, Any]) -> None:
    class Owner:
        def preprocess(self, inputs: Inputs) -> dict[str, Any]:
            return {"x": inputs["x"] * 2}

    owner, model = Owner(), RecordingModel()
    vars(owner).update(attributes)
    model.preprocess = owner.preprocess
    warm_up(checked(model), 4, print)


def test_a_hook_that_raises_lets_the_next_have_its_turn() -> None:
    def refusing(values: Inputs) -> dict[str, Any]:
        raise ValueError(len(values))

    hook = watched(refusing, "preprocess")
    for _ in range(2):
        with pytest.raises(ValueError, match="1"):
            hook.arrays({"x": rows(1)}, dict)


def test_rows_of_unequal_lengths_in_a_kept_buffer_are_copied_too() -> None:
    buffer = np.zeros((2, 4), "f4")

    def hook(outputs: Inputs) -> Any:
        buffer[...] = outputs["y"]
        return {"y": [buffer[0, :1], buffer[1, :3]]}

    def take(result: Any) -> dict[str, Array]:
        return {"y": ragged(result["y"])}

    kept = watched(hook, "postprocess")
    first = kept.arrays({"y": rows(1, 2)}, take)["y"]
    kept.arrays({"y": rows(3, 4)}, take)
    assert [row.tolist() for row in first] == [[1], [2, 2, 2]]
    assert kept.turns.notes


def test_hooks_are_watched_once_however_often_a_model_is_wrapped() -> None:
    model = RecordingModel()
    model.preprocess = fresh
    watch_hooks(model)
    first = model.preprocess
    watch_hooks(model)
    assert model.preprocess is first
