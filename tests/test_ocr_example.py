"""The OCR of examples/ocr: its steps go together, and lay.py cuts what leaves the reader."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save
from onnxruntime import InferenceSession

from batcher.app.checking.pipelines import check_pipeline
from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.settings import ServerSettings

EXAMPLE = Path(__file__).parents[1] / "examples" / "ocr"
GRAPHS = {
    "ocr_detect": ("x", "sigmoid_0.tmp_0"),
    "ocr_direction": ("x", "save_infer_model/scale_0.tmp_1"),
    "ocr_read": ("x", "place", "score"),
}
"""Inputs and outputs of the graphs that lay.py writes."""


def graph(file: Path, source: str, *outputs: str) -> None:
    """Write a graph with these names, which nobody runs."""
    made = helper.make_graph(
        [helper.make_node("Identity", [source], [name]) for name in outputs],
        "small",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    save(helper.make_model(made), file)


@pytest.fixture
def definitions(tmp_path: Path) -> dict[str, list[ModelDefinition]]:
    found = {}
    for folder in (EXAMPLE / "models").iterdir():
        own = tmp_path / folder.name / "1"
        own.mkdir(parents=True)
        for file in (folder / "1").glob("*.*"):
            if file.suffix in (".yaml", ".py"):
                (own / file.name).write_text(file.read_text())
        if folder.name in GRAPHS:
            graph(own / "model.onnx", *GRAPHS[folder.name])
        found[folder.name] = [load_model_definition(folder.name, "1", own)]
    return found


def test_the_steps_go_with_the_models(definitions: dict[str, list[ModelDefinition]]) -> None:
    check_pipeline(definitions["ocr"][0], definitions, ServerSettings())


def test_the_likeliest_character_alone_leaves_the_reader(tmp_path: Path) -> None:
    shape = ["rows", "columns", 5]
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["softmax"])],
        "reader",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("softmax", TensorProto.FLOAT, shape)],
    )
    reader = helper.make_model(made, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    scores = np.random.default_rng(0).random((2, 7, 5), np.float32)

    cut = runpy.run_path(str(EXAMPLE / "lay.py"))["with_best"](reader)

    session = InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["place", "score"]
    place, score = session.run(None, {"x": scores})
    assert place.tolist() == scores.argmax(2).tolist()
    assert score.tolist() == scores.max(2).tolist()
