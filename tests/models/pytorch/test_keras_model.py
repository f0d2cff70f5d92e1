"""Without Keras the extra is named; with another backend the variable is."""

from __future__ import annotations

import io
import stat
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from batcher.errors import ModelLoadError
from batcher.models.pytorch.keras_model import load_keras
from batcher.models.zip_entries import FREE_BYTES
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


def zipped(name: str, content: bytes = b"", kind: int = stat.S_IFREG) -> bytes:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", b"{}")
        archive.writestr(entry, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (zipped("assets/../../x"), "got a name that leads out of it: 'assets/../../x'"),
        (zipped("/tmp/x"), "got an absolute name"),
        (zipped("assets/x", b"/etc", stat.S_IFLNK), "got a link: 'assets/x'"),
        (zipped("model.weights.h5", bytes(2 * FREE_BYTES)), "for each byte of the archive; got"),
        (b"\x89HDF of an older Keras", "expected a file that `model.save` of Keras 3 has made"),
    ],
    ids=["up", "absolute", "link", "bomb", "no zip"],
)
def test_a_zip_that_may_do_harm_is_not_handed_to_keras(
    content: bytes, got: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(backend=lambda: "torch")
    monkeypatch.setitem(sys.modules, "keras", MagicMock(config=config, __version__="3.14.0"))
    definition = folders.define("format: keras\nfile: net.keras", {"net.keras": content})
    with pytest.raises(ModelLoadError, match=got):
        folders.load(definition)
    sys.modules["keras"].saving.load_model.assert_not_called()


VERSIONS = [("3.8.0", False), ("3.13.2", False), ("4.0", True)]


@pytest.mark.parametrize(("version", "is_read"), VERSIONS)
def test_an_old_keras_reads_no_file_that_is_not_trusted(
    version: str, is_read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(backend=lambda: "torch")
    keras = MagicMock(config=config, __version__=version)
    monkeypatch.setitem(sys.modules, "keras", keras)
    file = tmp_path / "net.keras"
    file.write_bytes(zipped("model.weights.h5"))
    load_keras(file, trusted=True)
    if is_read:
        load_keras(file, trusted=False)
    else:
        with pytest.raises(ModelLoadError, match=rf"expected Keras 3\.14 or later; got {version}"):
            load_keras(file, trusted=False)
    assert keras.saving.load_model.call_count == 1 + is_read


TORCH_SAYS = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 400000000000 bytes."


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError(TORCH_SAYS), "400000000000 bytes"),
        (RuntimeError("CUDA out of memory. Tried to allocate 37.25 GiB."), "37.25 GiB"),
        (MemoryError("Unable to allocate 373. GiB for an array"), "373. GiB"),
        (MemoryError(), "more"),
    ],
    ids=["torch", "cuda", "numpy", "python"],
)
def test_layers_that_do_not_fit_into_memory_are_told_with_the_file_and_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, asked: str
) -> None:
    def load(*_: Any, **__: Any) -> None:
        try:
            raise error
        except Exception as err:  # as Keras does, without a cause
            raise TypeError(f"<class Dense> could not be deserialized: {err}")  # noqa: B904

    keras = MagicMock(config=SimpleNamespace(backend=lambda: "torch"), __version__="3.14.0")
    keras.saving.load_model = load
    monkeypatch.setitem(sys.modules, "keras", keras)
    file = tmp_path / "net.keras"
    file.write_bytes(zipped("model.weights.h5"))
    words = rf"got net\.keras, of \d+ bytes, whose layers ask for {asked}: serve it where"
    with pytest.raises(ModelLoadError, match=words):
        load_keras(file, trusted=False)


def test_another_error_of_keras_keeps_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = MagicMock(config=SimpleNamespace(backend=lambda: "torch"), __version__="3.14.0")
    keras.saving.load_model.side_effect = TypeError("could not be deserialized")
    monkeypatch.setitem(sys.modules, "keras", keras)
    (tmp_path / "net.keras").write_bytes(zipped("model.weights.h5"))
    with pytest.raises(TypeError, match="could not be deserialized"):
        load_keras(tmp_path / "net.keras", trusted=False)
