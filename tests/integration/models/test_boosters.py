"""The own files of XGBoost and LightGBM are served as they are, and answer as the libraries do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.config.model_file import definition_of
from batcher.config.reading import Source
from batcher.config.single_file import SingleFile
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.describing.describe import describe
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(96, 4))
ROWS[::7, 1] = np.nan
CLASSES = np.digitize(ROWS[:, 0], [-0.5, 0.5])


OUTPUT = "{name: y, dtype: FP64, shape: []}"


def write(library: Any, kind: str, file: Path, rows: Any = ROWS) -> Array:
    """Write a booster to `file`, and return what it predicts for all `rows`."""
    names = {"regressor": ROWS[:, 0], "binary": CLASSES > 1, "classes": CLASSES}
    short = "XGB" if library.__name__ == "xgboost" else "LGBM"
    estimator = getattr(library, f"{short}{'Regressor' if kind == 'regressor' else 'Classifier'}")
    booster: Any
    model = estimator(n_estimators=5).fit(rows, names[kind])
    if short == "XGB":
        booster = model.get_booster()
        booster.save_model(file)
        return np.asarray(booster.inplace_predict(rows))
    booster = model.booster_
    booster.save_model(file)
    return np.asarray(booster.predict(rows))


def served(folders: Folders, file: Path) -> CheckedModel:
    found = describe(SingleFile(file), False)
    notes = tuple(found.notes)
    definition = definition_of(Source(found.values, {(): "m"}), "m", "1", file.parent, notes)
    return folders.load(definition, max_batch_size=96)


@pytest.mark.parametrize("kind", ["regressor", "binary", "classes"])
@pytest.mark.parametrize(("name", "file"), [("xgboost", "t.ubj"), ("lightgbm", "t.txt")])
def test_a_booster_answers_as_its_library(
    folders: Folders, tmp_path: Path, name: str, file: str, kind: str
) -> None:
    wanted = write(pytest.importorskip(name), kind, tmp_path / file)
    checked = served(folders, tmp_path / file)
    (tensor,) = checked.spec.inputs
    assert (tensor.shape, tensor.missing_is_nan) == ((4,), True)
    np.testing.assert_array_equal(answers(checked, x=ROWS)["predict"], wanted)
    alone = [answers(checked, x=ROWS[[place]])["predict"][0] for place in range(10)]
    np.testing.assert_allclose(alone, wanted[:10], rtol=1e-6)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_inputs_of_other_names_than_the_columns_are_refused(
    folders: Folders, tmp_path: Path, name: str
) -> None:
    library, file = (
        pytest.importorskip(name),
        tmp_path / ("t.ubj" if name == "xgboost" else "t.txt"),
    )
    table = pytest.importorskip("pandas").DataFrame(ROWS, columns=["age", "rooms", "size", "year"])
    wanted = write(library, "regressor", file, table)
    inputs = [f"{{name: {column}, dtype: FP64, shape: []}}" for column in reversed(table.columns)]
    yaml = (
        f"format: {name}\nfile: {file.name}\ninputs: [{', '.join(inputs)}]\noutputs: [{OUTPUT}]\n"
    )
    checked = folders.load(folders.write(yaml, {file.name: file.read_bytes()}), max_batch_size=96)
    given = {column: table[column].to_numpy() for column in table}
    np.testing.assert_array_equal(answers(checked, **given)["y"], wanted)
    with pytest.raises(
        ModelLoadError, match=r"expected the columns .* 'age', .*; got 'year', .*ages"
    ):
        folders.load(folders.write(yaml.replace("age", "ages"), version="1"))
