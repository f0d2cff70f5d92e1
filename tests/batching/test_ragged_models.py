"""A padded model as its clients see it: answers as if each request had run alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.errors import BatcherError
from batcher.testing import ModelInProcess

YAML = """
format: python
class: model:Mean
inputs:
  - {name: x, dtype: FP32, shape: [-1], pad: -7, mask: mask, lengths: sizes, warmup_shape: [4]}
  - {name: mask, dtype: INT64, shape: [-1]}
  - {name: sizes, dtype: INT32, shape: []}
outputs:
  - {name: mean, dtype: FP32, shape: []}
  - {name: twice, dtype: FP32, shape: [-1], unpad: true}
  - {name: size, dtype: INT32, shape: []}
"""
CODE = """
class Mean:
    def predict(self, inputs):
        x, mask = inputs["x"], inputs["mask"]
        if (x == 666).any():
            raise ValueError("a bad row")
        assert ((mask == 0) <= (x == -7)).all()
        mean = (x * mask).sum(axis=1) / mask.sum(axis=1)
        return {"mean": mean, "twice": 2 * x, "size": inputs["sizes"]}
"""


@pytest.fixture
def mean(tmp_path: Path) -> Iterator[Any]:
    """Return a function that loads the model with settings."""
    folder = tmp_path / "mean" / "1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(YAML)
    (folder / "model.py").write_text(CODE)
    loaded: list[ModelInProcess] = []

    def load(**settings: Any) -> ModelInProcess:
        loaded.append(ModelInProcess(tmp_path / "mean", **settings))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


def rows(*lengths: int) -> list[Any]:
    return [np.arange(1, length + 1, dtype="<f4")[np.newaxis] for length in lengths]


def test_requests_of_different_lengths_share_a_batch_and_get_answers_of_their_own(
    mean: Any,
) -> None:
    model = mean()
    sent = rows(3, 5, 4, 5)
    answers = [model.submit({"x": x}) for x in sent]
    assert model.step() == 4
    for x, answer in zip(sent, answers, strict=True):
        assert answer.outputs["mean"].tolist() == pytest.approx([x.mean()])
        assert answer.outputs["twice"].tolist() == (2 * x).tolist()
        assert answer.outputs["size"].tolist() == [x.shape[1]]


def test_a_client_may_send_a_mask_of_its_own(mean: Any) -> None:
    model = mean()
    own = {"x": [[1.0, -7.0, 3.0]], "mask": [[1, 0, 1]]}
    answers = [model.submit(own), model.submit({**own, "x": [[1.0, -7.0, 5.0]]})]
    while model.step():
        pass
    assert [answer.outputs["mean"].tolist() for answer in answers] == [[2.0], [3.0]]


def test_a_bad_row_fails_none_of_its_neighbours(mean: Any) -> None:
    model = mean()
    sent = [*rows(3, 5), np.full((1, 4), 666, "<f4"), *rows(2)]
    answers = [model.submit({"x": x}) for x in sent]
    while model.step():
        pass
    with pytest.raises(BatcherError):
        _ = answers[2].outputs
    for index in (0, 1, 3):
        assert answers[index].outputs["twice"].tolist() == (2 * sent[index]).tolist()


def test_the_limit_of_elements_holds_and_larger_requests_are_cut(mean: Any) -> None:
    model = mean(max_batch_elements=10)
    large = np.ones((6, 5), "<f4")
    whole = model.submit({"x": large})
    others = [model.submit({"x": x}) for x in rows(2, 3, 12)]
    while model.step():
        pass
    assert whole.outputs["twice"].tolist() == (2 * large).tolist()
    assert [each.outputs["twice"].shape[1] for each in others] == [2, 3, 12]
    assert max(model.batches) <= 3


def test_real_and_padded_elements_are_counted(mean: Any) -> None:
    model = mean()
    for x in rows(2, 5):
        model.submit({"x": x})
    model.step()
    metrics = model._version.scheduler._metrics
    assert (metrics.real_elements, metrics.padded_elements) == (7, 10)


def test_a_client_that_leaves_takes_only_its_own_row_along(mean: Any) -> None:
    model = mean()
    answers = [model.submit({"x": x}) for x in rows(2, 9, 3)]
    answers[1].cancel()
    while model.step():
        pass
    assert [answers[index].outputs["size"].tolist() for index in (0, 2)] == [[2], [3]]
