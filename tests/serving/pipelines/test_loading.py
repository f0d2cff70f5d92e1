"""The life of a pipeline: what is wrong is named with its line, and models come and go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from batcher.config.model_settings import ModelOverrides
from batcher.errors import ModelLoadError, ModelNotReady
from batcher.serving.model_version import ModelState
from tests.support.models import RecordingModel, checked, model_spec, rows, tensor
from tests.support.pipelines import CHAIN, Pipelines, definition, of_two
from tests.support.serving import SETTINGS


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Pipelines]:
    pipelines = of_two(tmp_path)
    yield pipelines
    pipelines.end()


def reason(pipelines: Pipelines, text: str) -> str:
    """Return why a pipeline cannot be loaded."""
    error = pipelines.loop.error_of(pipelines.pipeline(text))
    assert isinstance(error, ModelLoadError)
    return str(error)


def test_a_model_that_is_not_here_is_named_with_line_and_nearest_name(two: Pipelines) -> None:
    text = reason(two, CHAIN.replace("model: two", "model: twoo"))

    assert text == (
        "model 'p' version 1: model.yaml:10: steps.1.model: expected a model that is here; got "
        "'twoo'; did you mean 'two'?"
    )


def test_an_input_that_the_model_does_not_have_is_named(two: Pipelines) -> None:
    text = reason(two, CHAIN.replace("inputs: {x: first.y}", "inputs: {xx: first.y}"))

    assert "model.yaml:11: steps.1.inputs.xx: expected an input of model 'two' (x)" in text


def test_an_output_that_the_model_does_not_have_is_named(two: Pipelines) -> None:
    text = reason(two, CHAIN.replace("first.y", "first.z"))

    assert "steps.1.inputs.x: expected an output of step 'first' (y); got 'z'" in text


@pytest.mark.parametrize(
    ("have", "error"),
    [
        (tensor("y", "FP64"), "expected FP32[-1,4]; got 'first.y' of FP64[-1,4]"),
        (tensor("y", shape=(5,)), "expected FP32[-1,4]; got 'first.y' of FP32[-1,5]"),
        (tensor("y", shape=(2, 2)), "expected FP32[-1,4]; got 'first.y' of FP32[-1,2,2]"),
        (
            tensor("y", shape=(-1,), is_ragged=True),
            "steps.1.inputs.x: expected FP32[-1,4]; got 'first.y' of FP32[-1,-1], which is ragged",
        ),
    ],
)
def test_dtypes_and_shapes_must_go_together(tmp_path: Path, have: object, error: str) -> None:
    pipelines = Pipelines(tmp_path)
    pipelines.model("one", spec=model_spec(outputs=(have,), name="one"))  # type: ignore[arg-type]
    pipelines.model("two")

    assert error in reason(pipelines, CHAIN)
    pipelines.end()


def test_an_output_of_the_pipeline_must_have_the_declared_shape(two: Pipelines) -> None:
    text = reason(two, CHAIN.replace("y, dtype: FP32, shape: [4]", "y, dtype: FP32, shape: [3]"))

    assert "model.yaml:4: outputs.0: expected FP32[-1,3]; got 'second.y' of FP32[-1,4]" in text


def test_a_pipeline_waits_for_models_that_are_being_loaded(tmp_path: Path) -> None:
    pipelines = Pipelines(tmp_path)
    loads = [pipelines.add("one"), pipelines.pipeline(CHAIN), pipelines.add("two")]

    for load in loads:
        assert pipelines.loop.wait_for(load) is None
    assert pipelines.values(pipelines.infer(1, model="p")) == [4]
    pipelines.end()


def test_a_pipeline_whose_model_cannot_be_loaded_says_so_in_readiness(tmp_path: Path) -> None:
    def fails(progress: object) -> None:
        raise ModelLoadError("no weights")

    pipelines = Pipelines(tmp_path)
    pipelines.model("one")
    pipelines.loop.error_of(pipelines.add("two", load=fails))
    pipelines.ready(CHAIN)
    pipelines.turn()

    assert pipelines.server.unready()["p/1"] == (
        "broken: step 'second' needs model two/1, which is failed: no weights"
    )
    assert isinstance(pipelines.loop.error_of(pipelines.infer(1, model="p")), ModelNotReady)
    pipelines.model("two")
    pipelines.turn()
    assert pipelines.server.unready() == {}
    assert pipelines.values(pipelines.infer(1, model="p")) == [4]
    pipelines.end()


def test_a_model_that_is_unloaded_takes_its_pipeline_along_until_it_is_back(
    two: Pipelines,
) -> None:
    version = two.ready(CHAIN)
    two.loop.wait_for(two.server.unload(two.server.find("two")))
    two.turn()

    assert version.state is ModelState.BROKEN
    assert "steps.1.model: expected a model that is here; got 'two'" in version.detail
    two.model("two", lambda inputs: {"y": inputs["x"] * 3})
    two.turn()
    assert two.values(two.infer(1, model="p")) == [6]


def test_a_model_is_replaced_below_a_pipeline_that_goes_on(two: Pipelines) -> None:
    two.ready(CHAIN)
    before = two.server.find("two")
    new = definition_of_model(two, "two", 5)

    assert two.loop.wait_for(new) is None
    two.turn()

    assert two.server.find("two") is not before
    assert two.values(two.infer(1, model="p")) == [10]


def definition_of_model(pipelines: Pipelines, name: str, factor: float) -> Deferred[None]:
    """Begin to replace a model by one that multiplies by `factor`."""
    version = pipelines.server.find(name)
    model = RecordingModel(version.spec, lambda inputs: {"y": inputs["x"] * factor})
    return pipelines.server.replace(version.definition, SETTINGS, lambda progress: checked(model))


def test_a_pipeline_is_replaced_while_it_serves(two: Pipelines) -> None:
    two.ready(CHAIN)
    longer = (
        CHAIN.replace("from: second.y", "from: third.y")
        + """
  - name: third
    model: one
    inputs: {x: second.y}
"""
    )

    replaced = two.server.replace(definition(two.folder, longer), SETTINGS)

    assert two.loop.wait_for(replaced) is None
    assert two.values(two.infer(1, model="p")) == [8]


def test_a_pipeline_that_does_not_fit_does_not_replace_one_that_serves(two: Pipelines) -> None:
    two.ready(CHAIN)
    wrong = definition(two.folder, CHAIN.replace("model: two", "model: three"))

    error = two.loop.error_of(two.server.replace(wrong, SETTINGS))

    assert "expected a model that is here; got 'three'" in str(error)
    assert two.values(two.infer(1, model="p")) == [4]


def test_a_pipeline_is_no_step_of_a_pipeline(two: Pipelines) -> None:
    two.ready(CHAIN)
    own = definition(two.folder, CHAIN.replace("model: two", "model: p"), "q")

    error = two.loop.error_of(two.server.add(own, SETTINGS))

    assert "steps.1.model: expected a model; 'p' is a pipeline" in str(error)


def test_a_request_does_not_go_on_with_outputs_that_its_steps_do_not_know(two: Pipelines) -> None:
    two.ready(CHAIN)
    before = two.server.find("one")
    wider = replace(before.spec, outputs=(tensor("y", "FP64"),))
    new = RecordingModel(wider, lambda inputs: {"y": inputs["x"].astype("<f8")})
    changed = replace(before.definition, spec=wider)
    loaded = two.server.replace(changed, SETTINGS, lambda progress: checked(new))
    sent: list[Any] = []

    # The pipeline hears of the change in the next turn of the loop.
    loaded.addCallback(lambda _: sent.append(two.server.infer("p", {"x": rows(1.0)})))
    assert two.loop.wait_for(loaded) is None
    assert isinstance(two.loop.error_of(sent[0]), ModelNotReady)


def test_a_version_that_answers_nobody_says_nothing_of_a_step(tmp_path: Path) -> None:
    own = ModelOverrides.model_validate({"shadow": {"version": "2"}})
    pipelines = of_two(tmp_path, models={"one": own})
    other = model_spec(outputs=(tensor("z"),), name="one", version="2")
    pipelines.model("one", lambda inputs: {"z": inputs["x"]}, version="2", spec=other)
    pipelines.ready(CHAIN)
    assert pipelines.values(pipelines.infer(1, model="p")) == [4]
    pipelines.end()
