"""Models on disk for tests: written, read as a server reads them, and run on one batch."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from batcher.models.loading import load_model

FLOATS = "[{{name: {}, dtype: FP32, shape: [4]}}]"


class Folders:
    """Version folders under one temporary folder.

    Attributes:
        base: the repository's folder.
        progress: the steps of loading, in words, for all models.
    """

    def __init__(self, base: Path) -> None:
        """Write below `base`."""
        self.base = base
        self.progress: list[str] = []

    def define(
        self,
        head: str,
        files: dict[str, str | bytes] | None = None,
        inputs: str = FLOATS.format("x"),
        outputs: str = FLOATS.format("y"),
        name: str = "m",
        version: str = "1",
    ) -> ModelDefinition:
        """Write a version folder with `files` and a `model.yaml`, and read the folder.

        `head` holds the lines of `model.yaml` that belong to the format.
        """
        text = f"{head}\ninputs: {inputs}\noutputs: {outputs}\n"
        return self.write(text, files, name, version)

    def write(
        self,
        text: str,
        files: Mapping[str, str | bytes] | None = None,
        name: str = "m",
        version: str = "1",
    ) -> ModelDefinition:
        """Write a version folder with `files` and the `text` of `model.yaml`; read the folder."""
        folder = self.base / name / version
        for file, content in (files or {}).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.yaml").write_text(text)
        return load_model_definition(name, version, folder)

    def python(self, source: str, entry: str = "code:Model", **more: Any) -> ModelDefinition:
        """Write a model of one Python file, `code.py`."""
        files = {
            "code.py": f"import numpy as np\nimport torch\n\n{source}",
            **more.pop("files", {}),
        }
        return self.define(f"format: python\nclass: {entry}{more.pop('head', '')}", files, **more)

    def load(self, definition: ModelDefinition, **settings: Any) -> CheckedModel:
        """Load a model on the CPU, with batches of at most 4 rows; `settings` may change both."""
        chosen = ModelSettings(**{"device": "cpu", "max_batch_size": 4, **settings})
        return load_model(definition, chosen, self.progress.append)


def answers(checked: CheckedModel, **inputs: Array) -> dict[str, Array]:
    """Run one batch as a worker does; no row of it fails."""

    def collate(allocate: Callable[..., Array], place: object = None) -> dict[str, Array]:
        collated = {}
        for name, array in inputs.items():
            collated[name] = allocate(name, array.shape, array.dtype)
            collated[name][...] = array
        return collated

    outputs, failed = checked.predict(collate, len(next(iter(inputs.values()))))
    assert not failed
    return outputs


def floats(rows: int = 3, width: int = 4) -> Array:
    """Return float32 rows that are all different."""
    return np.arange(rows * width, dtype="<f4").reshape(rows, width)


def multiplied_by(checked: CheckedModel) -> float:
    """Return the factor of a model that multiplies."""
    return float(answers(checked, x=np.ones((1, 4), "<f4"))["y"][0, 0])


def pickled_elsewhere() -> bytes:
    """Return a pickle of a class of a module `features`, made as by a script."""
    module = ModuleType("features")
    exec("class Extractor:\n    def factor(self):\n        return 0\n", vars(module))
    sys.modules["features"] = module
    try:
        return pickle.dumps(module.Extractor())
    finally:
        del sys.modules["features"]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """A repository of models."""
    return Folders(tmp_path / "repository")
