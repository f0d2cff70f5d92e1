"""The model of `batcher run` in this process: a pipeline comes with the models of its steps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.app.jobs import local
from batcher.app.jobs.local import LocalModel, LocalServer, find_local
from batcher.config.settings import ServerSettings
from batcher.errors import ModelLoadError
from tests.support.crossing import Loop
from tests.support.pipelines import CHAIN

MODEL = """\
format: python
class: model:Times
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4]}]
"""
PIPELINE = CHAIN.replace("model: two", "model: two\n    version: stable")


def write_times(folder: Path, name: str, version: int, factor: str) -> None:
    """Write a model that multiplies by `factor`."""
    own = folder / name / str(version)
    own.mkdir(parents=True, exist_ok=True)
    (own / "model.yaml").write_text(MODEL)
    predict = f"    def predict(self, inputs):\n        return {{'y': inputs['x'] * {factor}}}\n"
    (own / "model.py").write_text(f"class Times:\n{predict}")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a repository with the pipeline `p` of `one`, the newest, and of `two`, the first."""
    for name in ("one", "two", "other"):
        for version, factor in ((1, "2"), (2, "10")):
            write_times(tmp_path, name, version, factor)
    (tmp_path / "p/1").mkdir(parents=True)
    (tmp_path / "p/1/model.yaml").write_text(PIPELINE)
    return tmp_path


def found(models: Path, **own: Any) -> LocalModel:
    defaults = {"device": "cpu", "warmup": False, "max_batch_size": 4}
    settings = ServerSettings.model_validate(
        {
            "model_repository": str(models),
            "defaults": defaults,
            "models": {"two": {"labels": {"stable": 1}}, **own},
        }
    )
    return find_local("p", settings, models)


class _EventLoop:
    """What of a loop of asyncio is used here."""

    def __init__(self, loop: Loop) -> None:
        self.call_soon_threadsafe = loop.call_from_thread
        self.call_soon = partial(loop.clock.callLater, 0)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Return a loop beside which nothing of the process is set."""
    for name in ("leave_libraries", "set_collector", "set_switch_interval"):
        monkeypatch.setattr(local, name, lambda *_: None)
    return Loop()


def test_a_pipeline_answers_by_the_versions_that_its_steps_name(models: Path, loop: Loop) -> None:
    model = found(models)
    assert [(each.found.name, each.found.version) for each in model.steps] == [
        ("one", "2"),
        ("two", "1"),
    ]
    event_loop: Any = _EventLoop(loop)
    reactor: Any = loop.clock
    server = LocalServer(model, reactor, event_loop)
    assert loop.wait_for(server.load()) is None
    response: Any = loop.wait_for(server.infer({"x": np.ones((3, 4), "f4")}))
    assert response.outputs["y"][:, 0].tolist() == [20, 20, 20]
    loop.wait_for(server.stop())


def test_requests_of_a_model_that_is_divided_among_versions_go_to_the_one_that_is_loaded(
    models: Path, loop: Loop
) -> None:
    event_loop: Any = _EventLoop(loop)
    reactor: Any = loop.clock
    canary = {"labels": {"stable": 1}, "canary": {"version": "2"}}
    server = LocalServer(found(models, one=canary), reactor, event_loop)
    assert loop.wait_for(server.load()) is None
    for _ in range(20):
        response: Any = loop.wait_for(server.infer({"x": np.ones((1, 4), "f4")}))
        assert response.outputs["y"][:, 0].tolist() == [20]
    loop.wait_for(server.stop())


def test_a_model_of_a_step_that_cannot_be_loaded_says_why(models: Path, loop: Loop) -> None:
    (models / "two/1/model.py").write_text("raise RuntimeError('no weights')\n")
    event_loop: Any = _EventLoop(loop)
    reactor: Any = loop.clock
    server = LocalServer(found(models), reactor, event_loop)
    error = loop.error_of(server.load())
    assert isinstance(error, ModelLoadError)
    assert "no weights" in str(error)
    loop.wait_for(server.stop())


def test_a_job_of_a_pipeline_changes_with_the_models_of_its_steps(models: Path) -> None:
    before = found(models).identity()
    write_times(models, "other", 2, "7 * 1000")
    assert found(models).identity() == before
    write_times(models, "two", 1, "7 * 1000")
    assert found(models).identity() != before
    assert found(models, one={"max_batch_size": 2}).identity() != found(models).identity()
