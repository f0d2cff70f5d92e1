"""`compile: inductor`: when a model is compiled, and who hears of it."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_settings import ModelSettings
from tests.models.pytorch.test_graphs import FORWARD, network
from tests.models.pytorch.test_precision import archived
from tests.support.model_folders import Folders, answers, floats

EIGHT = {"compile": "inductor", "max_batch_size": 8}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what is compiled in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache" / "inductor"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each compilation by a compiler that returns the graph as it is."""
    found: list[dict[str, Any]] = []

    def compile_fx(graph: torch.fx.GraphModule, inputs: Any, config_patches: Any) -> Any:
        found.append(config_patches)
        return graph.forward

    torch._dynamo.reset()
    module = importlib.import_module("torch._inductor.compile_fx")
    monkeypatch.setattr(module, "compile_fx", compile_fx)
    return found


def test_warm_up_ends_with_code_for_any_number_of_rows(
    folders: Folders, compiled: list[dict[str, Any]]
) -> None:
    definition = network(folders)
    expected = answers(folders.load(definition, max_batch_size=8), x=floats(5))["y"]
    checked = folders.load(definition, **EIGHT)
    steps = [step for step in folders.progress if step.startswith("compiling")]
    assert steps == ["compiling, for inputs of [1, 4]", "compiling, for inputs of [2, 4]"]
    folders.progress.clear()
    for rows in range(1, 9):
        answers(checked, x=floats(rows))
    assert folders.progress == []
    np.testing.assert_allclose(answers(checked, x=floats(5))["y"], expected, rtol=1e-6)


def test_a_batch_that_needs_other_code_is_told(
    folders: Folders, compiled: list[dict[str, Any]]
) -> None:
    free = "[{{name: {}, dtype: FP32, shape: [-1, -1], warmup_shape: [2, 2]}}]"
    definition = folders.python(
        FORWARD.format("return x * 2 if x.shape[2] < 9 else x * 3"),
        inputs=free.format("x"),
        outputs="[{name: y, dtype: FP32, shape: [-1, -1]}]",
    )
    checked = folders.load(definition, **EIGHT)
    folders.progress.clear()
    wide = np.ones((2, 2, 10), "<f4")
    assert answers(checked, x=wide)["y"].tolist() == (wide * 3).tolist()
    assert folders.progress
    begin = "after the load: compiling, for inputs of ["
    assert all(step.startswith(begin) for step in folders.progress)


def test_what_a_hook_makes_is_compiled_for(
    folders: Folders, compiled: list[dict[str, Any]]
) -> None:
    hook = "    def preprocess(self, inputs):\n        return inputs\n"
    checked = folders.load(folders.python(FORWARD.format("return x * 2") + hook), **EIGHT)
    assert compiled
    assert answers(checked, x=floats())["y"].tolist() == (floats() * 2).tolist()


def test_a_mode_is_what_pytorch_means_by_it(
    folders: Folders, compiled: list[dict[str, Any]]
) -> None:
    folders.load(network(folders), **EIGHT, compile_mode="max-autotune-no-cudagraphs")
    assert compiled[0]["max_autotune"]


def test_a_model_that_cannot_be_compiled_runs_as_it_is(
    folders: Folders, compiled: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **more: Any) -> Callable[..., Any]:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(importlib.import_module("torch._inductor.compile_fx"), "compile_fx", fails)
    definition = network(folders)
    expected = answers(folders.load(definition), x=floats())["y"]
    found = answers(folders.load(definition, **EIGHT), x=floats())["y"]
    np.testing.assert_array_equal(found, expected)
    assert any("no compiler here" in step for step in folders.progress)


def test_a_client_gets_an_answer_where_the_compiler_fails_on_a_later_batch(
    folders: Folders, compiled: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **more: Any) -> Callable[..., Any]:
        raise RuntimeError("no code for this")

    hook = "    def preprocess(self, inputs):\n        return inputs\n"
    checked = folders.load(folders.python(FORWARD.format("return x * 2") + hook), **EIGHT)
    monkeypatch.setattr(importlib.import_module("torch._inductor.compile_fx"), "compile_fx", fails)
    folders.progress.clear()
    other = floats().astype("<f8")
    assert answers(checked, x=other)["y"].tolist() == (floats() * 2).tolist()
    assert folders.progress == [
        "after the load: compiling, for inputs of [3, 4]",
        "after the load: not compiled: RuntimeError: no code for this. This part runs as it is",
    ]


def test_formats_without_a_source_are_not_compiled(folders: Folders) -> None:
    files = {"net.pt2": archived("torchscript")}
    folders.load(folders.define("format: torchscript\nfile: net.pt2", files), **EIGHT)
    assert any(step.startswith("not compiled: expected a model of") for step in folders.progress)


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"compile_mode": "max-autotune"}, "`compile: inductor` beside it"),
        (
            {"compile": "inductor", "compile_mode": "reduce-overhead", "cuda_graphs": True},
            "default or max-autotune-no-cudagraphs beside cuda_graphs",
        ),
    ],
)
def test_modes_that_mean_nothing_are_refused(settings: dict[str, Any], wrong: str) -> None:
    contradiction = ModelSettings(**settings).contradiction()
    assert contradiction is not None
    assert contradiction[:2] == ("compile_mode", wrong)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_code_gives_the_answers_of_the_module(
    folders: Folders,
) -> None:
    torch._dynamo.reset()
    definition = network(folders)
    expected = answers(folders.load(definition, max_batch_size=8), x=floats(5))["y"]
    checked = folders.load(definition, **EIGHT)
    np.testing.assert_allclose(answers(checked, x=floats(5))["y"], expected, rtol=1e-5)
    assert not any(step.startswith("not compiled") for step in folders.progress)
