"""Versions without a `model.yaml` in a store: Triton's, below a `config.pbtxt`, and SavedModels."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.model_file import load_model_definition
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.repository import fetching
from batcher.serving.repository.stores import stores as stores_module
from batcher.serving.repository.stores.checksums import sha256_of
from batcher.serving.repository.stores.pushing import push, remove, versions_of
from batcher.serving.repository.stores.versions import versions_in
from tests.serving.repository.stores.conftest import ADDRESS, Bench
from tests.support.memory_store import MemoryStore
from tests.support.saved_models import PLAIN

CONFIG = """\
backend: "onnxruntime"
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "labels.txt" }
max_batch_size: 8
version_policy { latest { num_versions: 2 } }
"""
ABOVE = {"net/config.pbtxt": CONFIG.encode(), "net/labels.txt": b"no\nyes\n"}


@pytest.fixture
def triton(bench: Bench) -> Bench:
    """Return a store with versions 1 to 3 of Triton's model `net`."""
    versions = {f"net/{number}/model.onnx": str(number).encode() for number in (1, 2, 3)}
    bench.store.files.update(ABOVE | versions)
    return bench


def test_a_version_below_tritons_file_comes_with_it(triton: Bench) -> None:
    assert triton.look() == ["net/1", "net/2", "net/3"]
    folder = triton.fetch("net/2")
    assert folder is not None
    definition = load_model_definition("net", "2", folder)
    assert definition.file.read_bytes() == b"2"
    (output,) = definition.spec.outputs
    assert output.labels is not None
    assert output.labels.names == ("no", "yes")
    assert not (folder.parent / "3").exists(), "other versions are not fetched with it"


def test_a_version_with_a_model_yaml_of_its_own_stands_by_itself(triton: Bench) -> None:
    triton.put("net/2", model__yaml="format: onnx\nfile: model.onnx\n")
    found, _ = versions_in(ADDRESS, triton.store.list(""))
    assert [(each.title, each.prefix, each.inner) for each in found] == [
        ("net/1", "net", "1"),
        ("net/2", "net/2", ""),
        ("net/3", "net", "3"),
    ]


def test_a_change_of_tritons_file_is_another_content_of_each_version(triton: Bench) -> None:
    before = {each.digest for each in versions_in(ADDRESS, triton.store.list(""))[0]}
    triton.store.files["net/config.pbtxt"] += b"# changed\n"
    after = {each.digest for each in versions_in(ADDRESS, triton.store.list(""))[0]}
    assert (len(before), before & after) == (3, set())


def test_an_upload_without_the_file_of_the_model_has_not_ended(triton: Bench) -> None:
    triton.store.files["net/3/notes"] = triton.store.files.pop("net/3/model.onnx")
    triton.look()
    assert triton.fetch("net/3") is None
    reason = "the upload has not ended: config.pbtxt names '3/model.onnx', which is not there"
    assert triton.reason("net", "3") == reason


def test_a_model_of_tritons_may_be_a_folder(triton: Bench) -> None:
    triton.store.files["net/3/model.onnx/model.onnx"] = triton.store.files.pop("net/3/model.onnx")
    triton.look()
    folder = triton.fetch("net/3")
    assert folder is not None
    assert load_model_definition("net", "3", folder).file == folder / "model.onnx" / "model.onnx"


def test_the_sums_in_a_version_are_held_against_its_files(triton: Bench) -> None:
    triton.store.files["net/3/SHA256SUMS"] = b"0" * 64 + b"  model.onnx\n"
    triton.look()
    assert triton.fetch("net/3") is None
    assert "3/model.onnx: expected the content that SHA256SUMS" in triton.reason("net", "3")


def test_two_folders_of_one_number_are_named(triton: Bench) -> None:
    triton.store.files["net/03/model.onnx"] = b"03"
    assert triton.look() == ["net/1", "net/2"]
    assert triton.reason("net", "3").startswith("expected one folder a version; got also '")


def test_versions_serve_as_tritons_file_says(
    triton: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "open_store", lambda address: triton.store)
    monkeypatch.setattr(stores_module, "STEADY_S", 0.0)
    settings = ServerSettings(model_repository=ADDRESS, store_cache=str(tmp_path / "own"))
    listing = fetching.find_and_fetch(settings, tmp_path)
    assert [each.version for each in listing.folders if each.folder.is_dir()] == ["2", "3"]


def test_a_version_is_removed_and_what_stands_above_it_stays(triton: Bench) -> None:
    assert remove(triton.store, ADDRESS, "net", 2) == 1
    assert sorted(triton.store.files) == sorted([*ABOVE, "net/1/model.onnx", "net/3/model.onnx"])


def write_saved_model(folder: Path) -> None:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(PLAIN)
    (folder / "variables" / "variables.index").write_bytes(b"index")


def test_a_saved_model_is_pushed_and_fetched_as_it_stands(bench: Bench, tmp_path: Path) -> None:
    write_saved_model(tmp_path / "exported")
    put: list[str] = []
    store: MemoryStore = bench.store
    assert push(store, ADDRESS, tmp_path / "exported", "net", None, put.append) == "net/1"
    assert put[-1].startswith("saved_model.pb, "), "it makes the folder a version"
    assert bench.look() == ["net/1"]
    folder = bench.fetch("net/1")
    assert folder is not None
    assert sha256_of(folder / "saved_model.pb") == sha256_of(tmp_path / "exported/saved_model.pb")
    assert load_model_definition("net", "1", folder).entry == "serving_default"
    assert remove(store, ADDRESS, "net", 1) == 3
    assert (store.files, versions_of(store, ADDRESS)) == ({}, [])


def test_a_saved_model_beside_a_model_yaml_is_a_folder_that_must_be_there(bench: Bench) -> None:
    bench.put("net/1", model__yaml="format: savedmodel\nfile: exported\n")
    bench.look()
    assert bench.fetch("net/1") is None
    assert "model.yaml names 'exported', which is not there" in bench.reason("net", "1")
    bench.store.files["net/1/exported/saved_model.pb"] = PLAIN
    bench.look()
    folder = bench.fetch("net/1")
    assert folder is not None
    assert load_model_definition("net", "1", folder).file == folder / "exported"


def test_a_version_of_tritons_is_not_pushed_without_the_file_above_it(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "1" / "model.onnx").touch()
    (tmp_path / "net" / "config.pbtxt").write_text(CONFIG)
    with pytest.raises(ConfigError, match=r"a config\.pbtxt above it: copy the folder of the mod"):
        push(bench.store, ADDRESS, tmp_path / "net" / "1", "net", None, print)
