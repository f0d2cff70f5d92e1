"""Inputs and outputs of jobs in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.errors import ConfigError
from batcher.serving.jobs import stored
from batcher.serving.jobs.stored import open_stored, stored_place
from batcher.serving.repository.stores.folder import FolderStore
from batcher.serving.repository.stores.store import FileChanged
from tests.support.memory_store import MemoryStore


def test_a_file_of_a_store_is_read_by_ranges_as_an_open_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "READ_BYTES", 16)
    content = b"".join(b"line %03d\n" % number for number in range(100))
    store = MemoryStore({"rows.jsonl": content})
    found = store.find("rows.jsonl")
    assert found is not None
    file = open_stored(store, found)
    assert file.readline() == b"line 000\n"
    assert store.fetched == 16
    file.seek(27)
    assert file.readline() == b"line 003\n"
    assert file.seek(0, 2) == 900
    file.seek(-9, 2)
    assert file.read() == b"line 099\n"
    file.seek(0)
    assert file.read() == content


def test_a_file_that_changes_meanwhile_is_not_read_on() -> None:
    store = MemoryStore({"rows.jsonl": b"x" * 100})
    found = store.find("rows.jsonl")
    assert found is not None
    file = open_stored(store, found)
    store.files["rows.jsonl"] = b"y" * 100
    with pytest.raises(FileChanged):
        file.read(1)


def test_an_address_names_a_file_in_a_folder_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(stored, "open_bucket", lambda address: opened.append(address))
    place = stored_place("s3://bucket/in/rows.jsonl", "the input")
    assert (opened, place.name) == (["s3://bucket/in"], "rows.jsonl")
    assert stored_place("s3://bucket/pictures/", "the input").name == "pictures"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket", "the input: expected s3://BUCKET/FILE"),
        ("https://host/rows.jsonl", "the input: expected s3://BUCKET/FILE"),
        ("ftp://host/rows.jsonl", "the input: expected a folder, or an address"),
        ("s3://user:secret@bucket/rows.jsonl", "the input: expected an address without a password"),
    ],
)
def test_other_addresses_are_refused(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stored_place(address, "the input")


def test_a_folder_of_this_machine_finds_files_as_a_bucket_does(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"1234")
    store = FolderStore(tmp_path)
    found = store.find("rows.jsonl")
    assert found is not None
    assert (found.name, found.size) == ("rows.jsonl", 4)
    assert store.find("none.jsonl") is None
