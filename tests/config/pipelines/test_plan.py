"""What is wrong with the steps in a file, named with file and line before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.errors import ConfigError
from tests.support.pipelines import CASCADE, CHAIN, definition


def reason(folder: Path, text: str) -> str:
    """Return why `text` is no pipeline."""
    with pytest.raises(ConfigError) as caught:
        definition(folder, text)
    return str(caught.value)


def test_steps_stand_in_an_order_in_which_they_can_run(tmp_path: Path) -> None:
    head, first, second = CHAIN.partition("  - name: first")
    first, mark, second = (first + second).partition("  - name: second")
    plan = definition(tmp_path, head + mark + second + "\n" + first).plan

    assert plan is not None
    assert [step.name for step in plan.steps] == ["first", "second"]


def test_a_cascade_reads_its_condition(tmp_path: Path) -> None:
    plan = definition(tmp_path, CASCADE).plan

    assert plan is not None
    condition = plan.steps[1].condition
    assert condition is not None
    assert condition.references == ("small.y",)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("inputs: {x: x}", "inputs: {x: second.y}", "wait for themselves; got first which needs"),
        ("inputs: {x: x}", "inputs: {x: z}", "model.yaml:8: steps.0.inputs.x: expected an input"),
        ("first.y", "frist.y", "got 'frist.y'; did you mean 'first'?"),
        ("first.y", "first", "name an output of it, as `first.OUTPUT`"),
        ("from: second.y", "from: secnd.y", "model.yaml:4: outputs.0.from: expected an input"),
        ("name: second", "name: first", "steps.1.name: expected a name of its own; got 'first'"),
        ("name: first", "name: x", "as the input 'x' has"),
        ("from: second.y", "from: first.y", "steps.1: expected an output or a step that reads"),
        ("model: two", "modell: two", "unknown setting steps.1.modell"),
        ("model: two", "use: softmax\\n    model: two", "expected one of model, use, class"),
        ("model: two", "model: ../two", "`/` separates the segments of a path"),
        ("model: two", "model: two\\n    version: a/b", "`/` separates the segments of a path"),
        ("model: two", "model: two\\n    with: {k: 1}", "`with` beside `use` alone"),
        ("model: two", "model: two\\n    else: {y: 1}", "`when` beside `else`"),
        ("model: two", "class: os:system\\n    when: x > 1", "`outputs` of a step with `class`"),
        ("format: pipeline", "format: onnx\\nfile: m.onnx", "with format pipeline alone"),
        (", from: second.y", "", "with format pipeline alone"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, error: str) -> None:
    text = reason(tmp_path, CHAIN.replace(old, new.replace("\\n", "\n"), 1))

    assert error in text
    assert text.startswith("model.yaml:")


@pytest.mark.parametrize("name", ["../up", "a/b", "a.b", "", "1st", "é" * 3, "a" * 65, "a b"])
def test_names_of_steps_that_would_reach_a_path_are_refused(tmp_path: Path, name: str) -> None:
    text = reason(tmp_path, CHAIN.replace("name: first", f"name: '{name}'"))

    assert "steps.0.name: expected text like" in text


def test_more_steps_than_a_request_may_cost_are_refused(tmp_path: Path) -> None:
    more = "".join(
        f"  - {{name: s{index}, model: one, inputs: {{x: x}}}}\n" for index in range(100)
    )

    assert "expected at most 100 steps; got 102" in reason(tmp_path, CHAIN + more)
