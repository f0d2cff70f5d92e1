"""Built-in steps and code of an author, alone and within a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.config.pipelines.options import (
    CropBoxesOptions,
    LabelOptions,
    ThresholdOptions,
    TopKOptions,
)
from batcher.core.ragged import is_ragged, ragged
from batcher.core.spec import Array
from batcher.errors import ModelError, ModelLoadError
from batcher.serving.pipelines.built_in.boxes import CropBoxes, Fold
from batcher.serving.pipelines.built_in.built_in import COUNTS
from batcher.serving.pipelines.built_in.scores import (
    Argmax,
    Label,
    Softmax,
    Threshold,
    TopK,
)
from tests.support.models import double, model_spec, tensor
from tests.support.pipelines import Pipelines, of_two

SCORES = np.array([[1, 3, 2], [5, 5, 0]], np.float32)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Pipelines]:
    pipelines = of_two(tmp_path)
    yield pipelines
    pipelines.end()


def test_softmax_gives_probabilities_of_large_logits() -> None:
    found = Softmax().run({"values": SCORES + 1000})["probabilities"]

    assert found.dtype == np.float32
    assert np.allclose(found.sum(-1), 1)
    assert np.allclose(found[0], np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum())


def test_argmax_and_label_name_the_best_class() -> None:
    index = Argmax().run({"values": SCORES})["index"]
    label = Label(LabelOptions(labels=("a", "b")))

    assert index.tolist() == [1, 0]
    assert label.run({"index": np.array([0, 1, 2, -1])})["label"].tolist() == [b"a", b"b", b"", b""]


def test_top_k_keeps_the_largest_and_of_equals_the_first() -> None:
    found = TopK(TopKOptions(k=2)).run({"values": SCORES})

    assert found["values"].tolist() == [[3, 2], [5, 5]]
    assert found["indices"].tolist() == [[1, 2], [0, 1]]


def test_threshold_counts_the_value_itself() -> None:
    found = Threshold(ThresholdOptions(at=2)).run({"values": SCORES})["above"]

    assert found.tolist() == [[False, True, True], [True, True, False]]


def test_boxes_become_rows_and_rows_become_pictures_again() -> None:
    image = np.arange(2 * 1 * 4 * 5, dtype=np.float32).reshape(2, 1, 4, 5)
    boxes = ragged([np.array([[0, 0, 2, 1], [3, 1, 99, 3]], float), np.zeros((0, 4))])
    found = CropBoxes(CropBoxesOptions()).run({"image": image, "boxes": boxes})

    assert [crop.tolist() for crop in found["crops"]] == [[[[0, 1]]], [[[8, 9], [13, 14]]]]
    assert found["box"].tolist() == [[0, 0, 2, 1], [3, 1, 5, 3]]
    assert found[COUNTS].tolist() == [2, 0]
    folded = Fold().run({"values": found["box"], COUNTS: found[COUNTS]})["values"]
    assert [len(each) for each in folded] == [2, 0]


@pytest.mark.parametrize(
    "box", [[2, 2, 2, 3], [3, 0, 1, 2], [9, 0, 12, 2], [np.nan] * 4, [-9, -9, 0, 0]]
)
def test_a_box_without_a_pixel_makes_no_row(box: list[float]) -> None:
    image, boxes = np.zeros((1, 1, 4, 5), np.float32), np.array([[box]])

    found = CropBoxes(CropBoxesOptions()).run({"image": image, "boxes": boxes})

    assert found[COUNTS].tolist() == [0]
    assert found["box"].shape == (0, 4)


BOXES = """
format: pipeline
inputs:
  - {name: image, dtype: FP32, shape: [1, 4, 6]}
outputs:
  - {name: sums, dtype: FP32, shape: [-1], ragged: true, from: folded.values}
steps:
  - {name: found, model: find, inputs: {image: image}}
  - {name: cut, use: crop_boxes, inputs: {image: image, boxes: found.boxes}}
  - {name: read, model: read, inputs: {crop: cut.crops}}
  - {name: folded, use: fold, inputs: {values: read.sum}}
"""


MORE = "outputs:\n  - {name: s, dtype: FP32, shape: [], from: read.sum}"


def boxes_of(inputs: Any) -> dict[str, Any]:
    """Find as many boxes in a picture as its first pixel says, each wider than the one before."""
    return {
        "boxes": ragged(
            [
                np.array([[0, 0, width + 1, 2] for width in range(int(image[0, 0, 0]))], "<f4")
                .reshape(-1, 4)
                .astype("<f4")
                for image in inputs["image"]
            ]
        )
    }


def detector(tmp_path: Path) -> Pipelines:
    """Return a server with a model that finds boxes, and one that reads what is in them."""
    pipelines = Pipelines(tmp_path)
    found = tensor("boxes", shape=(-1, 4), is_ragged=True)
    image = tensor("image", shape=(1, 4, 6))
    spec = model_spec((image,), (found,), name="find")
    pipelines.add_ready("find", predict=boxes_of, spec=spec)
    crop = tensor("crop", shape=(1, -1, -1), pad=np.float32(0))
    spec = model_spec((crop,), (tensor("sum", shape=()),), name="read")
    pipelines.add_ready(
        "read", predict=lambda inputs: {"sum": inputs["crop"].sum((1, 2, 3))}, spec=spec
    )
    return pipelines


def test_crops_of_unequal_sizes_are_read_and_folded_for_each_picture(tmp_path: Path) -> None:
    pipelines = detector(tmp_path)
    pipelines.ready(BOXES)
    images = np.zeros((3, 1, 4, 6), np.float32)
    images[:, 0, 0, 0] = [2, 0, 3]

    response = pipelines.response(pipelines.infer(model="p", inputs={"image": images}))

    sums = response.outputs["sums"]
    assert is_ragged(sums)
    assert [each.tolist() for each in sums] == [[2, 2], [], [3, 3, 3]]
    pipelines.end()


def test_a_blank_picture_runs_no_row_of_the_second_model(tmp_path: Path) -> None:
    pipelines = detector(tmp_path)
    pipelines.ready(BOXES)

    answer = pipelines.infer(model="p", inputs={"image": np.zeros((2, 1, 4, 6), np.float32)})
    response = pipelines.response(answer)

    assert response.outputs["sums"].shape == (2, 0)
    assert pipelines.server.metrics.model("read", "1").statistics.inference_count == 0
    pipelines.end()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("outputs:", MORE, "fold it first, with a step `use: fold`"),
        (", ragged: true", "", "expected `ragged: true`, as 'folded.values' is"),
        ("use: fold,", "use: folds,", "steps.3.use: expected one of argmax, crop_boxes"),
        ("{image: image, boxes", "{image: found.boxes, boxes", "expected rows of three axes"),
        ("boxes: found.boxes", "box: found.boxes", "steps.1.inputs.box: expected an input of `use"),
        ("{values: read.sum}", "{values: read.sum}, with: {k: 1}", "unknown setting k"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, old: str, new: str, error: str) -> None:
    pipelines = detector(tmp_path)

    found = pipelines.loop.error_of(pipelines.pipeline(BOXES.replace(old, new)))

    assert isinstance(found, ModelLoadError)
    assert error in str(found)
    assert "model.yaml:" in str(found)
    pipelines.end()


CODE = """
format: pipeline
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: z, dtype: FP32, shape: [], from: own.z}]
steps:
  - {name: first, model: one, inputs: {x: x}}
  - name: own
    class: own:Own
    inputs: {y: first.y}
    outputs: [{name: z, dtype: FP32, shape: []}]
"""


def code(pipelines: Pipelines, text: str) -> None:
    folder = pipelines.folder / "p" / "1"
    folder.mkdir(parents=True)
    (folder / "own.py").write_text(text)


def test_code_of_an_author_is_a_step(two: Pipelines) -> None:
    code(two, "class Own:\n    def __call__(self, v):\n        return {'z': v['y'].sum(1)}\n")
    two.ready(CODE)

    response = two.response(two.infer(1, 2, model="p"))

    assert response.outputs["z"].tolist() == [8, 16]


@pytest.mark.usefixtures("logged_errors")
def test_code_that_raises_fails_its_own_request(two: Pipelines) -> None:
    code(two, "def Own(v):\n    assert v['y'][0, 0] != 2\n    return {'z': v['y'].sum(1)}\n")
    two.ready(CODE)
    wrong, right = two.infer(1, model="p"), two.infer(2, model="p")

    assert isinstance(two.loop.error_of(wrong), ModelError)
    assert two.response(right).outputs["z"].tolist() == [16]
    assert two.server.metrics.model("p", "1").exceptions["postprocess"] == 1


@pytest.mark.usefixtures("logged_errors")
def test_code_that_returns_something_else_names_the_step(two: Pipelines) -> None:
    code(two, "def Own(v):\n    return {'z': v['y'][:1]}\n")
    two.ready(CODE)

    error = two.loop.error_of(two.infer(1, 2, model="p"))

    assert "step own" in str(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("class Owm: pass", "has no attribute 'Own'"),
        ("Own = 3", "expected a function, or a class with `__call__`; got int"),
        ("class Own: pass", "expected a function, or a class with `__call__`; got Own"),
        ("def Own(:", "SyntaxError"),
    ],
)
def test_code_that_cannot_be_loaded_says_why(two: Pipelines, text: str, error: str) -> None:
    code(two, text)

    found = two.loop.error_of(two.pipeline(CODE))

    assert isinstance(found, ModelLoadError)
    assert error in str(found)
    assert "step 'own': own:Own" in str(found)


def test_a_large_array_is_worked_on_beside_the_loop(tmp_path: Path) -> None:
    wide = tensor("x", shape=(50_000,))
    pipelines = Pipelines(tmp_path)
    spec = model_spec((wide,), (tensor("y", shape=(50_000,)),), name="one")
    pipelines.add_ready("one", predict=double, spec=spec)
    pipelines.ready(
        """
format: pipeline
inputs: [{name: x, dtype: FP32, shape: [50000]}]
outputs: [{name: i, dtype: INT64, shape: [], from: best.index}]
steps:
  - {name: first, model: one, inputs: {x: x}, when: max(x) > 5, else: {y: x}}
  - {name: best, use: argmax, inputs: {values: first.y}}
"""
    )
    inputs: Array = np.zeros((2, 50_000), np.float32)
    inputs[0, 7], inputs[1, 9] = 6, 1

    response = pipelines.response(pipelines.infer(model="p", inputs={"x": inputs}))

    assert response.outputs["i"].tolist() == [7, 9]
    pipelines.end()


BEST = """  - {name: best, use: top_k, with: {k: 1}, inputs: {values: read.sums}}
  - name: again
    use: softmax
    inputs: {values: best.values}
    when: max(best.values) < 9
    else: {probabilities: best.values}
"""


def test_behind_a_blank_picture_a_condition_chooses_nothing(tmp_path: Path) -> None:
    pipelines = detector(tmp_path)
    crop = tensor("crop", shape=(1, -1, -1), pad=np.float32(0))
    spec = model_spec((crop,), (tensor("sums", shape=(2,)),), name="sums")
    pipelines.add_ready(
        "sums", predict=lambda inputs: {"sums": inputs["crop"].sum((2, 3))[:, [0, 0]]}, spec=spec
    )
    text = BOXES.replace("model: read", "model: sums").replace("read.sum", "again.probabilities")
    pipelines.ready(text.replace("shape: [-1], ragged", "shape: [-1, 1], ragged") + BEST)

    answer = pipelines.infer(model="p", inputs={"image": np.zeros((2, 1, 4, 6), np.float32)})

    assert pipelines.response(answer).outputs["sums"].shape == (2, 0, 1)
    pipelines.end()
