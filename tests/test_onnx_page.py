"""Each example of docs/onnx.md is a model that `batcher check` finds nothing wrong with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checking import check, messages
from tests.support.graphs import graph_bytes, node, value
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```yaml\n(.*?)^```", PAGE, re.S | re.M)


def plain() -> bytes:
    x, y = value("x", "FP32", "batch", 4), value("y", "FP32", "batch", 4)
    return graph_bytes([node("Relu", ["x"], ["y"])], [x], [y])


def of_tensorflow() -> bytes:
    audio = value("serving_default_input_2:0", "FP32", "unk__1", 8)
    outputs = [value(f"StatefulPartitionedCall:{index}", "FP32", "unk__2", 8) for index in (0, 1)]
    nodes = [node("Relu", [audio.name], [output.name]) for output in outputs]
    return graph_bytes(nodes, [audio], outputs)


def with_state() -> bytes:
    inputs = [
        value("x", "FP32", "batch", 4),
        value("state", "FP32", 2, "batch", 8),
        value("sr", "INT64"),
    ]
    outputs = [value("y", "FP32", "batch", 4), value("stateN", "FP32", 2, "batch", 8)]
    nodes = [
        node("Cast", ["sr"], ["rate"], to=1),
        node("Div", ["x", "rate"], ["y"]),
        node("Identity", ["state"], ["stateN"]),
    ]
    return graph_bytes(nodes, inputs, outputs)


@pytest.mark.parametrize(
    ("head", "graph"),
    list(zip((head for _, head in EXAMPLES), (plain, of_tensorflow, with_state), strict=True)),
    ids=[title for title, _ in EXAMPLES],
)
def test_an_example_is_a_model_without_breaches(
    folders: Folders, head: str, graph: Callable[[], bytes]
) -> None:
    assert messages(check(folders.write(head, {"model.onnx": graph()}))) == []


def test_every_block_of_yaml_is_run() -> None:
    assert len(EXAMPLES) == PAGE.count("```yaml\n") > 0
