"""`batcher models`: what people and training scripts do with versions in a store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest
from click.testing import CliRunner

from batcher.app import store_commands
from batcher.app.cli import main
from batcher.serving.repository.stores.folder import FolderStore
from batcher.serving.repository.stores.pushing import push
from batcher.serving.repository.stores.store import NoCreation
from tests.support.crossing import PATIENCE
from tests.support.memory_store import MemoryStore

ADDRESS = "s3://bucket/models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a version."""
    folder = tmp_path / "digits" / "3"
    (folder / "sub").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_text("x")
    (folder / "model.yaml").write_text("file: net.onnx\n")
    (folder / "net.onnx").write_bytes(b"x" * 3000)
    (folder / "sub/words.txt").write_text("a b c")
    return folder


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Return the store at every address."""
    store = MemoryStore()
    monkeypatch.setattr(store_commands, "open_store", lambda address: store)
    monkeypatch.setattr(store_commands, "open_bucket", lambda address: store)
    return store


def run(*words: object, status: int = 0) -> str:
    """Run `batcher models`, and return what it writes."""
    result = CliRunner().invoke(main, ["models", *map(str, words)])
    assert result.exit_code == status, result.output
    return result.output


def test_a_version_is_put_listed_fetched_and_removed(
    folder: Path, store: MemoryStore, tmp_path: Path
) -> None:
    assert "digits/3 is in s3://bucket/models" in run("push", folder, ADDRESS)
    assert run("ls", ADDRESS).startswith("digits/3  4 files  ")
    assert "digits/3 is in" in run("pull", ADDRESS, "digits", "--to", tmp_path / "got")
    got = tmp_path / "got/digits/3"
    names = {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()}
    assert names == {"model.yaml", "net.onnx", "sub/words.txt", "SHA256SUMS"}
    assert (got / "net.onnx").read_bytes() == b"x" * 3000
    assert list((tmp_path / "got/digits").iterdir()) == [got]
    assert "4 files" in run("rm", ADDRESS, "digits/3")
    assert store.files == {}


def test_model_yaml_is_put_last_and_removed_first(
    folder: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("push", folder, ADDRESS)
    names = [name.rpartition("/")[2] for name in store.files]
    assert names == ["SHA256SUMS", "net.onnx", "words.txt", "model.yaml"]
    removed: list[str] = []
    monkeypatch.setattr(store, "delete", removed.extend)
    run("rm", ADDRESS, "digits/3")
    assert removed[0] == "digits/3/model.yaml"
    assert len(removed) == 4


def test_a_folder_without_a_number_is_the_version_after_the_newest(
    folder: Path, store: MemoryStore
) -> None:
    plain = folder.rename(folder.parent / "net")
    assert "net/1 is in" in run("push", plain, ADDRESS)
    assert "net/2 is in" in run("push", plain, ADDRESS)
    assert "digits/9 is in" in run("push", plain, ADDRESS, "--name", "digits", "--version", "9")
    assert "digits/10 is in" in run("push", plain, ADDRESS, "--name", "digits")


def test_a_number_that_another_job_is_pushing_is_not_taken(
    folder: Path, store: MemoryStore
) -> None:
    plain = folder.rename(folder.parent / "net")
    store.files["net/4/SHA256SUMS"] = b""  # of an upload that goes on, or was broken off
    assert "net/5 is in" in run("push", plain, ADDRESS)
    of_others = run("push", plain, ADDRESS, "--version", "4", status=1)
    assert "got net/4, of which other files are being pushed" in of_others
    run("rm", ADDRESS, "net/4")
    assert "net/4 is in" in run("push", plain, ADDRESS, "--version", "4")


def test_a_push_of_a_number_that_was_broken_off_goes_on_with_the_same_files(
    folder: Path, store: MemoryStore
) -> None:
    run("push", folder, ADDRESS)
    del store.files["digits/3/model.yaml"], store.files["digits/3/net.onnx"]
    assert "digits/3 is in" in run("push", folder, ADDRESS)
    assert len(store.files) == 4


def test_pushes_at_the_same_instant_take_a_number_each(folder: Path, tmp_path: Path) -> None:
    jobs = 8
    begin, calls = Barrier(jobs), count()

    class Together(FolderStore):
        def create(self, name: str, content: bytes) -> bool:
            if next(calls) < jobs:  # the first call of each job
                begin.wait(PATIENCE)
            return super().create(name, content)

    def job(_: int) -> str:
        return push(Together(tmp_path / "all"), "", folder, "net", None, lambda text: None)

    with ThreadPoolExecutor(jobs) as threads:
        titles = list(threads.map(job, range(jobs)))
    assert sorted(titles) == [f"net/{number}" for number in range(1, jobs + 1)]


def test_who_names_a_number_that_is_taken_at_the_same_instant_is_told(
    folder: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create

    def another_is_first(name: str, content: bytes) -> bool:
        store.files.setdefault(name, b"of another")
        return create(name, content)

    monkeypatch.setattr(store, "create", another_is_first)
    assert "got digits/3, of which other files are being pushed" in run(
        "push", folder, ADDRESS, status=1
    )
    assert store.files == {"digits/3/SHA256SUMS": b"of another"}


@pytest.mark.parametrize("kind", ["heeds no condition", "knows no condition"])
def test_a_store_that_cannot_tell_who_was_first_is_named(
    kind: str, folder: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(name: str, content: bytes) -> bool:
        if kind == "knows no condition":
            raise NoCreation("no such header")
        store.files[name] = content
        return True

    monkeypatch.setattr(store, "create", create)
    output = run("push", folder, ADDRESS)
    assert "this store cannot tell which of two pushes is first" in output
    assert "digits/3 is in" in output
    assert len(store.files) == 4


def test_a_version_that_is_there_is_not_replaced(folder: Path, store: MemoryStore) -> None:
    run("push", folder, ADDRESS)
    assert "expected a new version; got digits/3" in run("push", folder, ADDRESS, status=1)


def test_a_folder_may_be_the_store(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    run("push", folder, place)
    assert (place / "digits/3/sub/words.txt").read_text() == "a b c"
    assert "digits/3  4 files" in run("ls", place)
    run("pull", place, "digits/3", "--to", tmp_path / "got")
    assert (tmp_path / "got/digits/3/net.onnx").read_bytes() == b"x" * 3000
    (place / "digits/3/__pycache__").mkdir()
    (place / "digits/3/__pycache__/net.pyc").write_text("of a server that has read the folder")
    run("rm", place, "digits/3")
    assert list(place.iterdir()) == []
    assert "has no version of any model" in run("ls", place)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("push", ".", ADDRESS), "expected the folder of a version, with a model.yaml"),
        (("push", ".", "https://example.com/x"), "a web server takes no files"),
        (("ls", "s3://me:hidden@bucket"), "without a password"),
        (("pull", ADDRESS, "digits"), "expected a version that is there; got 'digits'"),
        (("pull", ADDRESS, "digits/x"), "expected MODEL/VERSION"),
        (("ls", "s3:/bucket"), "expected a folder or an address; there is no 's3:/bucket'"),
        (("push", "m", ADDRESS, "--version", "9" * 20), "--version: expected at most 19 digits"),
        (("push", ".", ADDRESS, "--name", "../x"), "`/` separates the segments of a path"),
        (("push", ".", ADDRESS, "--name", ".."), "a path takes it for a step up"),
        (("push", ".", ADDRESS, "--name", "_new"), "servers pass over such names"),
        (("rm", ADDRESS, "digits"), "expected MODEL/VERSION"),
        (("rm", ADDRESS, "digits/9"), "expected a version that is there; got digits/9"),
        (("rm", ADDRESS, "/3"), "expected MODEL/VERSION, as in digits/3; got '/3'"),
        (("rm", "m", "../3"), "expected MODEL/VERSION, as in digits/3; got '../3'"),
        (("rm", ADDRESS, f"m/{'9' * 5000}"), "expected MODEL/VERSION, as in digits/3; got 'm/99"),
        (("pull", ADDRESS, ""), "expected MODEL/VERSION, as in digits/3; got ''"),
    ],
)
def test_a_mistake_ends_with_its_reason(
    words: tuple[str, ...],
    why: str,
    store: MemoryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.yaml").touch()
    text = run(*words, status=1)
    assert why in text
    assert "hidden" not in text


def test_why_a_version_is_left_out_is_told_of_the_model_that_is_asked_for(
    store: MemoryStore, tmp_path: Path
) -> None:
    store.files = {"m/1/model.yaml": b"", "m/2/model.yaml": b"", "m/2/a\\b": b""}
    store.files["n\x1b[2J/1/model.yaml"] = b""
    words = "m/2 is left out: expected names of files that can be copied; got 'a"
    listed = run("ls", ADDRESS)
    assert words in listed
    assert r"n\x1b[2J is left out: expected a name of a model" in listed
    assert "x1b" not in run("ls", ADDRESS, "m")
    store.files["m/v3/model.yaml"] = b""
    assert "m/v3 is left out: expected folders of versions that are" in run("ls", ADDRESS, "m")
    pulled = run("pull", ADDRESS, "m/2", "--to", tmp_path, status=1)
    assert words in pulled
    assert "expected a version that is there; got 'm/2'" in pulled


def test_links_in_a_folder_that_is_the_store_are_followed(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    run("push", folder, place)
    files = place / "digits/3"
    (files / "SHA256SUMS").unlink()
    (place / "digits/4").symlink_to("3")
    (files / "up").symlink_to("..")
    (files / "round").symlink_to("round")
    (files / "nowhere").symlink_to("nothing")
    assert run("ls", place).splitlines() == [
        f"digits/{number}  3 files  3,020 bytes" for number in (3, 4)
    ]
    plain = folder.rename(folder.parent / "net")
    assert "digits/5 is in" in run("push", plain, place, "--name", "digits")
    assert not (files / "SHA256SUMS").exists(), "the files of the other version are not written to"
    words = f"{str(place / 'digits/4')!r}: expected a folder; got a link: remove that"
    assert words in run("rm", place, "digits/4", status=1)
    assert (files / "model.yaml").is_file()


def test_a_version_that_names_a_file_which_is_not_there_is_not_pushed(
    folder: Path, store: MemoryStore
) -> None:
    (folder / "model.yaml").write_text("file: ./net.onnx\nsample: more.npy\n")
    words = "expected names of files in that folder; got 'more.npy'"
    assert words in run("push", folder, ADDRESS, status=1)
    assert store.files == {}
    (folder / "model.yaml").write_text("file: ./net.onnx\n")
    assert "digits/3 is in" in run("push", folder, ADDRESS)


def test_a_version_of_tritons_is_fetched_with_its_file_above_it(
    store: MemoryStore, tmp_path: Path
) -> None:
    store.files = {"net/config.pbtxt": b"backend: 'onnxruntime'"}
    store.files |= {f"net/{number}/model.onnx": number.encode() for number in ("01", "2")}
    for version in ("net", "net/1"):
        run("pull", ADDRESS, version, "--to", tmp_path)
    found = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == {
        "net/config.pbtxt": b"backend: 'onnxruntime'",
        "net/1/model.onnx": b"01",
        "net/2/model.onnx": b"2",
    }
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"config.pbtxt", "1", "2"}
    store.files |= {"net/config.pbtxt": b"backend: 'pytorch'", "net/3/model.pt": b"3"}
    words = "expected the file of net/3; got another"
    assert words in run("pull", ADDRESS, "net/3", "--to", tmp_path, status=1)


def test_a_folder_in_the_place_of_the_sums_is_refused(folder: Path, store: MemoryStore) -> None:
    (folder / "SHA256SUMS").mkdir()
    (folder / "SHA256SUMS/x").touch()
    assert "got both with the name 'SHA256SUMS'" in run("push", folder, ADDRESS, status=1)
    assert store.files == {}


@pytest.mark.parametrize("kind", ["circle", "pipe", "nowhere", "far"])
def test_links_and_pipes_in_a_folder_that_is_pushed(
    kind: str, folder: Path, store: MemoryStore, tmp_path: Path
) -> None:
    odd, words = folder / "sub" / "odd", "expected a file; got none, or a device"
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "f").write_text("far away")
    if kind == "circle":
        odd.symlink_to(folder)
        words = "got a link to one above it"
    elif kind == "pipe":
        os.mkfifo(odd)
    elif kind == "nowhere":
        odd.symlink_to("nothing")
    else:
        odd.symlink_to(tmp_path / "far")
        assert "digits/3 is in" in run("push", folder, ADDRESS)
        assert store.files["digits/3/sub/odd/f"] == b"far away"
        return
    assert words in run("push", folder, ADDRESS, status=1)
    assert store.files == {}


def test_a_folder_that_is_there_is_not_overwritten(
    folder: Path, store: MemoryStore, tmp_path: Path
) -> None:
    run("push", folder, ADDRESS)
    assert "expected a new folder" in run("pull", ADDRESS, "digits", "--to", tmp_path, status=1)
