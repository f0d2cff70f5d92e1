"""Names in a bucket that no folder can have: the library ends a listing at the first of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from batcher.serving.repository.stores.opening import open_bucket
from batcher.serving.repository.stores.versions import versions_in
from tests.integration.stores.counterparts import moto

pytest.importorskip("obstore", reason="the extra `stores` is not installed")


def test_a_name_that_no_folder_can_have_leaves_out_what_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto(tmp_path) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        root = f"{bucket.environment['AWS_ENDPOINT_URL']}/models/repository"

        def put(name: str) -> None:
            body = b"" if name.endswith("/") else b"x"
            asked = Request(f"{root}/{quote(name)}", body, {"Content-Type": "a/b"}, method="PUT")
            urlopen(asked, timeout=30).close()

        for name in ("a/1", "b/1", "b/2", "b/3", "c/1"):
            put(f"{name}/model.yaml")
        for name in ("b/1/", "b/1/sub/", "b/1/sub/net.onnx"):  # as a console makes folders
            put(name)
        found, faults = versions_in(bucket.address, open_bucket(bucket.address).list(""))
        assert faults == {}
        assert [file.name for file in found[1].files] == ["model.yaml", "sub/net.onnx"]
        for name in ("b/2//net.onnx", "b/3/sub/../net.onnx", "c//2/model.yaml", "notes/x//y"):
            put(name)
        store = open_bucket(bucket.address)
        found, faults = versions_in(bucket.address, store.list(""))
        assert [version.title for version in found] == ["a/1", "b/1"]
        assert set(faults) == {("b", "2"), ("b", "3"), ("c", "")}
        assert "got '/net.onnx'" in faults["b", "2"]
        assert "got 'sub/../net.onnx'" in faults["b", "3"]
        assert "got 'c//2/model.yaml': it has a folder without a name" in faults["c", ""]
        put("/d/1/model.yaml")
        with pytest.raises(OSError, match=r"repository//d/1/model.yaml"):
            store.list("")
