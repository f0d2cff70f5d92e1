"""The cascade of examples/cascade: its steps go with the networks that train.py writes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from batcher.app.checking.pipelines import check_pipeline
from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.settings import ServerSettings

EXAMPLE = Path(__file__).parents[1] / "examples" / "cascade"
NAMES = ("digits_small", "digits_large", "digits_cascade")


@pytest.fixture
def definitions(tmp_path: Path) -> dict[str, list[ModelDefinition]]:
    found = {}
    for name in NAMES:
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        text = (EXAMPLE / "models" / name / "1" / "model.yaml").read_text()
        (folder / "model.yaml").write_text(text)
        if name != "digits_cascade":
            (folder / "model.pt").write_bytes(b"")  # read when a model is loaded, not before
        found[name] = [load_model_definition(name, "1", folder)]
    return found


def test_the_steps_go_with_the_models(definitions: dict[str, list[ModelDefinition]]) -> None:
    check_pipeline(definitions["digits_cascade"][0], definitions, ServerSettings())


def test_the_condition_is_the_one_that_the_script_reports(
    definitions: dict[str, list[ModelDefinition]],
) -> None:
    plan = definitions["digits_cascade"][0].plan
    sure = runpy.run_path(str(EXAMPLE / "train.py"))["SURE"]

    assert plan is not None
    (condition,) = [step.condition for step in plan.steps if step.condition is not None]
    assert condition.text == f"max(small.scores) < {sure}"


@pytest.mark.parametrize("name", ["small", "large"])
def test_the_networks_give_a_score_for_each_digit(name: str) -> None:
    script = runpy.run_path(str(EXAMPLE / "train.py"))
    network = script["Probabilities"](script[name]()).eval()

    with torch.no_grad():
        scores = network(torch.rand(3, 1, 8, 8))

    assert scores.shape == (3, 10)
    assert torch.allclose(scores.sum(1), torch.ones(3))
