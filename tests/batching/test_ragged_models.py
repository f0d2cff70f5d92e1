"""A padded model as its clients see it: answers as if each request had run alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


PICTURES = """
format: python
class: model:Edges
inputs:
  - {name: picture, dtype: FP32, shape: [2, -1, -1], pad: -7, mask: mask, lengths: sizes}
  - {name: mask, dtype: FP32, shape: [-1, -1]}
  - {name: sizes, dtype: INT64, shape: [2]}
outputs:
  - {name: mean, dtype: FP32, shape: [2]}
  - {name: bright, dtype: BOOL, shape: [-1, -1], unpad: true}
  - {name: size, dtype: INT64, shape: [2]}
"""
EDGES = """
class Edges:
    def predict(self, inputs):
        picture, mask = inputs["picture"], inputs["mask"]
        assert ((mask == 0) == (picture == -7).all(axis=1)).all()
        mean = (picture * mask[:, None]).sum(axis=(2, 3)) / mask.sum(axis=(1, 2))[:, None]
        bright = (picture > mean[:, :, None, None]).any(axis=1)
        return {"mean": mean, "bright": bright, "size": inputs["sizes"]}
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelInProcess]:
    """A model whose pictures differ in height and width."""
    folder = tmp_path_factory.mktemp("models") / "pictures" / "1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(PICTURES)
    (folder / "model.py").write_text(EDGES)
    model = ModelInProcess(folder.parent)
    yield model
    model.close()


sizes_of_pictures = st.lists(
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8
)


@given(sizes_of_pictures)
def test_each_picture_gets_the_answer_of_a_batch_of_its_own(
    pictures: ModelInProcess, sizes: list[tuple[int, int, int]]
) -> None:
    random = np.random.default_rng(len(sizes))
    sent = [random.random((rows, 2, *size)).astype("<f4") for rows, *size in sizes]
    together = [pictures.submit({"picture": each}) for each in sent]
    while any(not answer.is_there for answer in together):
        assert pictures.step()
    for each, answer in zip(sent, together, strict=True):
        alone = pictures.submit({"picture": each})
        pictures.step()
        assert answer.outputs["size"].tolist() == [list(each.shape[2:])] * len(each)
        assert answer.outputs["mean"] == pytest.approx(alone.outputs["mean"], rel=1e-5)
        assert answer.outputs["bright"].tolist() == alone.outputs["bright"].tolist()
