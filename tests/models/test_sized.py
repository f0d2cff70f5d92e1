"""`batch_sizes`: a model of any format runs with some numbers of rows, and no client notices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.model_file import load_model_definition
from batcher.core.run_sizes import RunSizes
from batcher.core.spec import Array
from batcher.errors import ConfigError, ModelError
from batcher.models.checked import CheckedModel
from batcher.models.protocol import PartialOutputs
from batcher.models.sized import SizedModel
from batcher.models.warmup import warm_up
from batcher.testing import ModelInProcess
from tests.support.models import RecordingModel

SIZES = (2, 5, 8)
YAML = """
format: python
class: model:Fixed
batch_sizes: [1, 8, 32]
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
"""
CODE = """
class Fixed:
    def predict(self, inputs):
        assert len(inputs["x"]) in (1, 8, 32), len(inputs["x"])
        if (inputs["x"] == 666).any():
            raise ValueError("a bad row")
        return {"y": 2 * inputs["x"]}
"""


def run(model: SizedModel, rows: Array) -> dict[str, Array]:
    buffer = model.allocate("x", rows.shape, rows.dtype)
    buffer[...] = rows
    return model.predict({"x": buffer})


@given(st.integers(1, 8))
def test_a_batch_runs_with_the_next_size_and_gives_its_own_rows(rows: int) -> None:
    inner = RecordingModel()
    model = SizedModel(inner, SIZES)
    sent = np.arange(2 * rows, dtype="<f4").reshape(rows, 2)
    outputs = run(model, sent)
    ran = inner.batches[0]["x"]
    assert len(ran) == next(size for size in SIZES if size >= rows)
    assert ran[:rows].tolist() == sent.tolist()
    assert all(row.tolist() == sent[-1].tolist() for row in ran[rows:])
    assert all(len(array) == rows for array in outputs.values())


def test_errors_of_rows_that_nobody_sent_are_dropped() -> None:
    class Partial(RecordingModel):
        def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            errors = {row: ValueError("odd") for row in range(2, 5)}
            return PartialOutputs({"y": inputs["x"]}, errors, ("z",))

    outputs = run(SizedModel(Partial(), SIZES), np.ones((3, 2), "<f4"))
    assert isinstance(outputs, PartialOutputs)
    assert list(outputs.failed) == [2]
    assert outputs.left_out == ("z",)
    assert len(outputs["y"]) == 3


def test_no_size_is_above_what_the_model_takes() -> None:
    inner = RecordingModel()
    inner.max_rows = 6
    model = SizedModel(inner, SIZES)
    assert (model.max_rows, model.run_sizes) == (5, RunSizes(sizes=(2, 5)))


def test_warm_up_runs_each_size_and_the_loop_is_told() -> None:
    inner = RecordingModel()
    checked = CheckedModel(SizedModel(inner, SIZES))
    warm_up(checked, 64, lambda text: None)
    assert {len(batch["x"]) for batch in inner.batches} == set(SIZES)
    assert set(checked.timings) == set(SIZES)
    assert checked.loaded().run_sizes == RunSizes(sizes=SIZES)
    assert checked.loaded().max_rows == 8


def model_of(folder: Path, text: str = YAML, **settings: Any) -> ModelInProcess:
    version = folder / "fixed" / "1"
    version.mkdir(parents=True)
    (version / "model.yaml").write_text(text)
    (version / "model.py").write_text(CODE)
    return ModelInProcess(folder / "fixed", **settings)


def test_clients_of_a_model_with_sizes_get_their_own_answers_and_failures(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    values = [1.0, 2.0, 666.0, 4.0, 5.0]
    answers = [model.submit({"x": [[value, value]]}) for value in values]
    while not all(answer.is_there for answer in answers):
        assert model.step()
    for value, answer in zip(values, answers, strict=True):
        if value == 666.0:
            with pytest.raises(ModelError, match="a bad row"):
                _ = answer.outputs
        else:
            assert answer.outputs["y"].tolist() == [[2 * value, 2 * value]]
    large = model.submit({"x": np.ones((70, 2), "<f4")})
    while not large.is_there:
        assert model.step() <= 32
    assert large.outputs["y"].tolist() == [[2.0, 2.0]] * 70
    model.close()


@pytest.mark.parametrize("sizes", ["[8, 1]", "[8, 8]", "[0]"])
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, sizes: str) -> None:
    (tmp_path / "model.yaml").write_text(YAML.replace("[1, 8, 32]", sizes))
    with pytest.raises(ConfigError, match="batch_sizes"):
        load_model_definition("fixed", "1", tmp_path)
