"""The files of a version, and a digest that says whether two versions have the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.errors import ModelLoadError
from batcher.models.version_files import content_digest, seen_files, version_files

MODEL_YAML = """
format: python
class: model:Model
weights: weights.pt
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4]}]
"""


def version(folder: Path, code: str = "class Model: ...") -> ModelDefinition:
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(MODEL_YAML)
    (folder / "model.py").write_text(code)
    (folder / "weights.pt").write_bytes(b"weights")
    (folder / "deep").mkdir()
    (folder / "deep" / "more.txt").write_text("more")
    return load_model_definition("m", folder.name, folder)


def digest(definition: ModelDefinition) -> bytes:
    return content_digest(seen_files(definition))


def test_equal_files_have_one_digest_wherever_they_are(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a" / "1"), version(tmp_path / "b" / "7")
    assert digest(one) == digest(other)
    (other.folder / "__pycache__").mkdir()
    (other.folder / "__pycache__" / "model.pyc").write_bytes(b"code")
    assert digest(one) == digest(other)


def test_every_file_counts_by_its_name_and_its_bytes(tmp_path: Path) -> None:
    first = digest(version(tmp_path / "a" / "1"))
    found = {first, digest(version(tmp_path / "b" / "1", "class Model:  ..."))}
    other = version(tmp_path / "c" / "1")
    (other.folder / "deep" / "more.txt").rename(other.folder / "deep" / "less.txt")
    found.add(digest(other))
    (other.folder / "weights.pt").write_bytes(b"Weights")
    found.add(digest(other))
    assert len(found) == 4


def test_a_weight_outside_the_folder_counts(tmp_path: Path) -> None:
    definition = version(tmp_path / "a" / "1")
    outside = tmp_path / "weights.pt"
    outside.write_bytes(b"one")
    (definition.folder / "weights.pt").unlink()
    (definition.folder / "weights.pt").symlink_to(outside)
    first = digest(definition)
    outside.write_bytes(b"two")
    assert digest(definition) != first


def test_files_that_change_after_they_were_seen_have_no_digest(tmp_path: Path) -> None:
    definition = version(tmp_path / "a" / "1")
    seen = seen_files(definition)
    (definition.folder / "weights.pt").write_bytes(b"other weights")
    with pytest.raises(ModelLoadError, match=r"weights\.pt: it was changed"):
        content_digest(seen)


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    definition = version(tmp_path / "a" / "1")
    for path in sorted(definition.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(OSError, match="expected files"):
        seen_files(definition)


def test_links_that_go_while_they_are_followed_end_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/net.onnx").touch()

    def gone(path: object) -> str:
        raise FileNotFoundError(path)  # as `realpath` does where another program removes a link

    monkeypatch.setattr("os.path.realpath", gone)
    assert list(version_files(tmp_path)) == [tmp_path / "sub/net.onnx"]
