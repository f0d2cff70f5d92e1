"""What a store lists and hands out is the same with every kind."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from batcher.serving.repository.stores.cache import StoreCache
from batcher.serving.repository.stores.opening import open_bucket, open_store
from batcher.serving.repository.stores.parts import MIB
from batcher.serving.repository.stores.store import FileChanged
from batcher.serving.repository.stores.stores import Place, Stores
from tests.integration.stores.conftest import Remote
from tests.integration.stores.counterparts import SECRET


def test_files_are_listed_with_sizes_and_handed_out_in_ranges(remote: Remote) -> None:
    remote.put("m/1/model.yaml", b"file: net.bin\n")
    remote.put("m/1/sub/net 1.bin", bytes(range(256)))
    found = {file.name: file for file in remote.store.list("")}
    assert {"m/1/model.yaml", "m/1/sub/net 1.bin"} <= found.keys()
    file = found["m/1/sub/net 1.bin"]
    assert file.size == 256
    assert remote.store.fetch(file, 10, 20) == bytes(range(10, 20))
    assert remote.store.fetch(file, 250, 256) == bytes(range(250, 256))
    assert found == {file.name: file for file in remote.store.list("")}
    assert {file.name for file in remote.store.list("m/1/sub")} == {"m/1/sub/net 1.bin"}


def test_other_content_of_the_same_size_has_another_tag_and_is_not_mixed_in(
    remote: Remote,
) -> None:
    remote.put("changed/1/f", b"aaaa")
    (old,) = [file for file in remote.store.list("") if file.name == "changed/1/f"]
    assert remote.store.fetch(old, 0, 2) == b"aa"
    remote.put("changed/1/f", b"bbbbb")
    with pytest.raises(FileChanged, match="changed/1/f"):
        remote.store.fetch(old, 2, 4)
    (new,) = [file for file in remote.store.list("") if file.name == "changed/1/f"]
    assert new.tag != old.tag


def test_a_version_is_fetched_and_checked(remote: Remote, tmp_path: Path) -> None:
    content = Random(1).randbytes(3 * MIB + 1)
    remote.put("whole/1/model.yaml", b"file: net.bin\n")
    remote.put("whole/1/net.bin", content)
    place = Place(remote.counterpart.address, "")
    stores = Stores(StoreCache(tmp_path / "cache", 1 << 30), open_store, lambda *_: None)
    stores.look([place], patient=True)
    (version,) = [each for each in stores.known[place].versions if each.name == "whole"]
    stores.fetch(version)
    folder = version.folder_in(stores.cache.folder)
    assert (folder / "net.bin").read_bytes() == content


def test_of_two_that_create_a_file_one_alone_has_done_it(
    remote: Remote, request: pytest.FixtureRequest
) -> None:
    if remote.counterpart.upload is not None:
        pytest.skip("this one takes no files, or by another protocol")
    bucket = open_bucket(remote.counterpart.address)
    is_heeded = request.node.callspec.params["counterpart"] != "s3rver"  # older than the condition
    assert bucket.create("made/1/SHA256SUMS", b"first")
    assert bucket.create("made/1/SHA256SUMS", b"second") is not is_heeded
    (file,) = bucket.list("made/1")
    assert bucket.fetch(file, 0, file.size) == (b"first" if is_heeded else b"second")


def test_files_are_removed(remote: Remote) -> None:
    if remote.counterpart.upload is not None:
        pytest.skip("this one takes no files, or by another protocol")
    remote.put("gone/1/f", b"x")
    open_bucket(remote.counterpart.address).delete(["gone/1/f", "gone/1/never"])
    assert not [file for file in remote.store.list("") if file.name.startswith("gone")]


def test_an_error_names_the_store_and_no_secret(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in remote.counterpart.environment.items():
        if value.startswith("http://"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
    address = remote.counterpart.address.replace("models/", "nowhere/")
    if address.startswith("https"):
        address = "https://localhost:1/repository"
    with pytest.raises(OSError, match=address.split("//", maxsplit=1)[0]) as caught:
        open_store(address).list("")
    for text in (SECRET, *remote.counterpart.environment.values()):
        assert text not in str(caught.value) or text.startswith(("http", "us-", "true", "account"))
