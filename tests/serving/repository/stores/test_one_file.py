"""A model's `path` that is one file in a store works as one of this machine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.repository import fetching
from batcher.serving.repository.folders import define, find_models
from batcher.serving.repository.listing import ModelFolder
from batcher.serving.repository.reading import served
from batcher.serving.repository.stores import one_file
from batcher.serving.repository.stores import stores as stores_module
from batcher.serving.repository.stores.one_file import OneFile, file_address
from batcher.serving.repository.stores.stores import Stores
from batcher.serving.repository.stores.web import WebStore
from tests.models.pmml.test_pmml import FILES
from tests.support.memory_store import MemoryStore

PRICE = (FILES / "linear.pmml").read_bytes()


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("s3://b/net.onnx", ("s3://b", "net.onnx", "")),
        ("https://h/a/model.py:Net", ("https://h/a", "model.py", "Net")),
        ("gs://b/models/net.pt2", ("gs://b/models", "net.pt2", "")),
        ("s3://b/models", None),
        ("s3://net.onnx", None),
        ("s3://b/net.onnx:Net/x", None),
    ],
)
def test_an_address_with_the_name_of_a_models_file_is_one_file(
    address: str, found: tuple[str, ...] | None
) -> None:
    assert file_address(address) == found


def test_a_file_comes_with_what_belongs_to_it() -> None:
    names = ("net.onnx", "net.onnx.data", "other.onnx", "a/net.onnx", "model.py", "layers.py")
    store = MemoryStore(dict.fromkeys(names, b""))

    def listed(file: str) -> list[str]:
        return [each.name for each in OneFile(store, file).list("")]

    assert listed("net.onnx") == ["net.onnx", "net.onnx.data"]
    assert listed("model.py") == ["model.py", "layers.py"]
    assert listed("missing.onnx") == []


def test_of_a_web_server_the_file_alone_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def head(self: WebStore, name: str) -> Any:
        asked.append(name)
        raise FileNotFoundError(name)

    monkeypatch.setattr(one_file.WebStore, "head", head)
    assert OneFile(WebStore("https://h/models"), "net.onnx").list("") == []
    assert asked == ["net.onnx"]


class Bench:
    """A configuration with one model, `price`, at an address."""

    def __init__(self, base: Path, store: MemoryStore, path: str, **own: Any) -> None:
        self.base = base
        self.settings = ServerSettings.model_validate(
            {
                "model_repository": None,
                "store_cache": str(base / "cache"),
                "models": {"price": {"path": path, **own}},
            }
        )
        self.opened: list[str] = []
        self.stores: Stores = fetching.make_stores(self.settings, base, lambda *_: None)
        self.stores._open_store = lambda address: (self.opened.append(address), store)[1]

    def fetch(self) -> list[ModelFolder]:
        fetching.fetch(
            self.stores,
            self.settings,
            self.base,
            lambda listing: served(listing.folders, self.settings),
        )
        return find_models(self.settings, self.base, self.stores.known).folders


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr(stores_module, "STEADY_S", 0.0)
    return MemoryStore({"price.pmml": PRICE, "other/1/model.yaml": b"", "readme": b""})


def test_the_file_is_fetched_and_says_what_it_takes(store: MemoryStore, tmp_path: Path) -> None:
    bench = Bench(tmp_path, store, "S3://bucket/models/price.pmml/")
    (found,) = bench.fetch()
    assert bench.opened == ["s3://bucket/models"]
    assert (found.name, found.version) == ("price", "1")
    definition = define(found, False)
    assert (definition.format, definition.is_single) == ("pmml", True)
    assert definition.file.read_bytes() == PRICE
    assert store.fetched == len(PRICE)


def test_other_content_is_another_version_and_an_unchanged_file_is_not_fetched_again(
    store: MemoryStore, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, store, "s3://bucket/models/price.pmml")
    before, again = bench.fetch(), bench.fetch()
    assert (before, store.fetched) == (again, len(PRICE))
    store.files["price.pmml"] = PRICE + b"\n"
    assert bench.fetch() != before


def test_one_file_in_a_bucket_without_checksums_is_refused_with_what_to_do(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.memory_store._tag", lambda content: "0" * 32)
    bench = Bench(tmp_path, store, "s3://bucket/models/price.pmml")
    words = r"\(SSE-KMS\).*make a folder of it, with a model\.yaml and a SHA256SUMS"
    with pytest.raises(ConfigError, match=words):
        bench.fetch()


def test_a_file_that_is_not_there_is_named(store: MemoryStore, tmp_path: Path) -> None:
    bench = Bench(tmp_path, store, "s3://bucket/models/prices.pmml")
    words = r"models\.price: expected the file 'prices\.pmml' in s3://bucket/models; there is none"
    with pytest.raises(ConfigError, match=words):
        bench.fetch()


def test_what_is_said_of_a_folder_in_a_store_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    bench = Bench(tmp_path, store, "s3://bucket/models/other", inputs={"x": "FP32[4]"})
    store.files["model.yaml"] = b""
    with pytest.raises(
        ConfigError, match=r"expected inputs in the model\.yaml of 's3://bucket/mod"
    ):
        bench.fetch()
