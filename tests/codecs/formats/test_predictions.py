"""From scores to a label and its probability."""

from __future__ import annotations

import json
import math

import msgpack
import numpy as np
import pytest

from batcher.codecs.formats import bfloat16, csv_answers, json_lists, msgpack_maps
from batcher.codecs.formats.predictions import predictions
from batcher.core.spec import DATATYPES, Array, Labels, ModelSpec
from tests.support.codec_inputs import response
from tests.support.models import model_spec, tensor

NAMES = ("cat", "dog", "owl")


def labelled(dtype: str = "FP32", logits: bool = False) -> ModelSpec:
    return model_spec(outputs=(tensor("z"), tensor("y", dtype, (3,), labels=Labels(NAMES, logits))))


def best(scores: Array, dtype: str = "FP32", logits: bool = False) -> list[tuple[str, float]]:
    found = predictions(
        response(z=np.zeros((len(scores), 4), "<f4"), y=scores), labelled(dtype, logits)
    )
    return [(row["label"], row["probability"]) for row in found]


def test_each_row_has_its_best_class_and_its_probability() -> None:
    scores = np.array([[0.25, 0.5, 0.25], [0.75, 0.25, 0.0]], "<f4")
    assert best(scores) == [("dog", 0.5), ("cat", 0.75)]


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
def test_logits_become_probabilities(dtype: str) -> None:
    scores = np.log(np.array([[0.1, 0.2, 0.7]])).astype(
        {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}[dtype]
    )
    ((label, probability),) = best(scores, dtype, logits=True)
    assert label == "owl"
    assert probability == pytest.approx(0.7, rel=1e-3)


def test_very_large_logits_do_not_overflow() -> None:
    assert best(np.array([[1e4, -1e4, 0]], "<f4"), logits=True) == [("cat", 1.0)]


def test_scores_in_bf16_are_read_as_the_numbers_they_stand_for() -> None:
    scores = bfloat16.from_float32(np.array([[0.25, 0.125, 0.5]], "<f4"))
    assert best(scores, "BF16") == [("owl", 0.5)]


def test_integer_logits_are_read_as_numbers() -> None:
    ((label, probability),) = best(np.array([[-128, 127, 126]], "i1"), "INT8", logits=True)
    assert label == "dog"
    assert probability == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_model_without_labels_has_no_predictions() -> None:
    assert predictions(response(y=np.zeros((2, 4), "<f4")), model_spec()) == []


def test_predictions_stand_beside_the_outputs_in_json_and_msgpack() -> None:
    answer = response(z=np.zeros((1, 4), "<f4"), y=np.array([[0.25, 0.5, 0.25]], "<f4"))
    expected = [{"label": "dog", "probability": 0.5}]
    assert json.loads(bytes(json_lists.encode(answer, labelled())))["predictions"] == expected
    assert (
        msgpack.unpackb(bytes(msgpack_maps.encode(answer, labelled())))["predictions"] == expected
    )


def test_a_score_that_is_no_number_is_answered_as_null() -> None:
    answer = response(z=np.zeros((1, 4), "<f4"), y=np.full((1, 3), math.nan, "<f4"))
    (prediction,) = json.loads(bytes(json_lists.encode(answer, labelled())))["predictions"]
    assert prediction["probability"] is None


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([[0.25, 0.5, 0.25]], "probability"),
        ([[0.25, 0.5, 0.25], [math.nan, 0, 0]], "probability"),
        ([[1 / 3, 1 / 3, 1 / 3], [0, 1, 0]], "probability"),
        ([[0.25, 4.0, 0.25]], "score"),
        ([[-0.5, 1.0, 0.5]], "score"),
        ([[0.9, 0.9, 0.1]], "score"),
        ([[0.25, 0.5, 0.25], [3, 2, 1]], "score"),
    ],
)
@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
def test_what_is_no_probability_is_called_a_score_unless_the_model_says_what_it_is(
    rows: list[list[float]], kind: str, dtype: str
) -> None:
    labels = Labels(NAMES, is_declared=False)
    spec = model_spec(outputs=(tensor("y", dtype, (3,), labels=labels),))
    answer = response(y=np.array(rows, DATATYPES[dtype].numpy))
    found = json.loads(bytes(json_lists.encode(answer, spec)))["predictions"]
    assert [list(best) for best in found] == [["label", kind]] * len(rows)
    assert bytes(csv_answers.encode(answer, spec)).startswith(f"label,{kind},".encode())
    said = model_spec(outputs=(tensor("y", dtype, (3,), labels=Labels(NAMES)),))
    assert [list(best) for best in predictions(answer, said)] == [["label", "probability"]] * len(
        rows
    )
