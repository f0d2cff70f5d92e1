"""The models in examples/models/ are served as they stand, and short enough to read at once."""

from __future__ import annotations

import io
import runpy
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from batcher.errors import InvalidInput
from batcher.testing import ModelInProcess, batcher_model

assert batcher_model  # a fixture, by its name

EXAMPLES = Path(__file__).parents[1] / "examples" / "models"
Load = Callable[..., ModelInProcess]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_picture_gets_its_colour(batcher_model: Load) -> None:
    model = batcher_model(EXAMPLES / "torch_module.py")
    scores = model.post(png(Image.new("RGB", (50, 40), "green")), "image/png")["scores"]
    assert scores.argmax(1).tolist() == [1]
    assert model.predict({"picture": np.zeros((2, 3, 32, 32), "u1")})["scores"].tolist() == [
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_rows_of_csv_get_their_kinds(batcher_model: Load) -> None:
    pytest.importorskip("sklearn")
    outputs = batcher_model(EXAMPLES / "table.py").post(b"5,3.4,1.5,0.2\n6,3,5.5,2\n", "text/csv")
    assert outputs["kind"].tolist() == [b"setosa", b"virginica"]
    assert (outputs["probability"] > 0.8).all()


def test_a_graph_takes_rows_of_any_width(
    batcher_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(sys, "argv", ["graph.py", str(tmp_path / "mean.onnx")])
    runpy.run_path(str(EXAMPLES / "graph.py"))
    model = batcher_model(tmp_path / "mean.onnx")
    for width in (3, 5):
        assert model.predict({"x": [[2.0] * width]})["mean"].tolist() == [2]


def test_texts_of_similar_lengths_share_a_batch(batcher_model: Load) -> None:
    model = batcher_model(EXAMPLES / "lengths.py")
    answers = [model.submit({"text": text}) for text in ("abc", "a longer one", "x" * 40)]
    assert (model.step(), model.step()) == (2, 1)
    alone = model.predict({"text": "abc"})["embedding"]
    np.testing.assert_allclose(answers[0].outputs["embedding"], alone, rtol=1e-5)


def test_each_picture_has_as_many_boxes_as_spots(batcher_model: Load) -> None:
    pytest.importorskip("scipy")
    model = batcher_model(EXAMPLES / "detections.py")
    picture = Image.new("L", (64, 64))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((4, 8, 11, 15), 255)
    draw.rectangle((40, 20, 49, 29), 255)
    outputs = model.post(png(picture), "image/png")
    assert outputs["boxes"].tolist() == [[[4, 8, 12, 16], [40, 20, 50, 30]]]
    assert model.post(png(Image.new("L", (64, 64))), "image/png")["boxes"].shape == (1, 0, 4)


def test_a_file_of_any_type_gets_to_the_model(batcher_model: Load) -> None:
    file: Any = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 8000, 0, "NONE", ""))
        recording.writeframes(bytes(2 * 4000))
    model = batcher_model(EXAMPLES / "recording.py")
    assert model.post(file.getvalue(), "audio/wav")["seconds"].tolist() == [0.5]
    with pytest.raises(InvalidInput, match="expected a WAV"):
        model.post(b"%PDF", "application/pdf")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 25
