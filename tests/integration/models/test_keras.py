"""Files of Keras 3 are served on PyTorch, and answer as Keras does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.config.model_file import definition_of
from batcher.config.reading import Source
from batcher.config.single_file import SingleFile
from batcher.errors import ConfigError
from batcher.models.checked import CheckedModel
from batcher.models.describing.child import described
from batcher.models.describing.describe import task_of
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.config.backend() != "torch":
    pytest.skip("Keras was imported with another backend", allow_module_level=True)
layers = keras.layers
RNG = np.random.default_rng(0)


def several() -> Any:
    picture, extra = keras.Input((8, 8, 1), name="image"), keras.Input((3,), name="extra")
    found = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(picture))
    found = layers.BatchNormalization()(layers.Concatenate()([found, extra]))
    scores = layers.Dense(3, activation="softmax", name="scores")(found)
    return keras.Model([picture, extra], [scores, layers.Dense(1, name="size")(found)])


def words() -> Any:
    ids = keras.Input((None,), dtype="int32", name="ids")
    parts = [layers.Embedding(50, 4), layers.GRU(5), layers.Dropout(0.5), layers.Dense(2)]
    return keras.Sequential([ids, *parts])


def doubled() -> Any:
    return keras.Sequential([keras.Input((2,), name="x"), layers.Lambda(lambda x: x * 2)])


ROWS = {
    "several": {
        "image": RNG.random((4, 8, 8, 1), np.float32),
        "extra": RNG.random((4, 3), np.float32),
    },
    "words": {"ids": RNG.integers(0, 50, (4, 7)).astype("<i4")},
}
MAKERS: dict[str, Callable[[], Any]] = {"several": several, "words": words}


def served(folders: Folders, file: Path, trusted: bool = False) -> CheckedModel:
    found = described(task_of(SingleFile(file), "keras", trusted))
    notes = tuple(found.notes)
    definition = definition_of(Source(found.values, {(): "m"}), "m", "1", file.parent, notes)
    return folders.load(definition, trusted=trusted)


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_answers_as_keras_alone_and_in_batches(
    folders: Folders, tmp_path: Path, name: str
) -> None:
    model, rows = MAKERS[name](), ROWS[name]
    model.save(tmp_path / "net.keras")
    given = list(rows.values())
    wanted = model.predict(given if len(given) > 1 else given[0], verbose=0)
    wanted = wanted if isinstance(wanted, list) else [wanted]
    checked = served(folders, tmp_path / "net.keras")
    assert [tensor.name for tensor in checked.spec.inputs] == list(rows)
    together = answers(checked, **rows)
    for found, right in zip(together.values(), wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)
    alone = answers(checked, **{key: each[1:2] for key, each in rows.items()})
    for found, right in zip(alone.values(), wanted, strict=True):
        np.testing.assert_allclose(found[0], right[1], rtol=1e-4, atol=1e-6)


def test_a_lambda_layer_is_code_and_needs_trust(folders: Folders, tmp_path: Path) -> None:
    doubled().save(tmp_path / "net.keras")
    with pytest.raises(ConfigError, match=r"expected `trusted: true`; got net\.keras with a"):
        served(folders, tmp_path / "net.keras")
    checked = served(folders, tmp_path / "net.keras", trusted=True)
    assert answers(checked, x=np.ones((2, 2), "<f4"))["output"].tolist() == [[2, 2], [2, 2]]
