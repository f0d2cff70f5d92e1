"""Without Keras the extra is named; with another backend the variable is."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from batcher.errors import ModelLoadError
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders


def test_without_keras_the_extra_is_named(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    definition = folders.define("format: keras\nfile: net.keras", {"net.keras": b""})
    words = r"expected the extra keras; got none.*pip install 'batcher-inference\[keras\]'"
    with pytest.raises(ModelLoadError, match=words):
        folders.load(definition)


def test_another_backend_is_refused_with_the_variable_to_set(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(backend=lambda: "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(config=config))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    definition = folders.define("format: keras\nfile: net.keras", {"net.keras": b""})
    with pytest.raises(ModelLoadError, match="got tensorflow: set KERAS_BACKEND=torch"):
        folders.load(definition)
