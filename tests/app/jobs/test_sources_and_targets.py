"""Inputs and outputs of `batcher run`, on this machine and in a store."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from batcher.app.jobs import sources
from batcher.app.jobs.opening import Asked, DoneBefore, Opened, check_names, open_job
from batcher.app.jobs.sources import source_at
from batcher.app.jobs.targets import Target, target_at
from batcher.core.portions import Answer
from batcher.core.request import InferenceResponse
from batcher.errors import ConfigError, DecodingError
from batcher.serving.jobs import stored
from batcher.serving.jobs.answering import Outcome
from batcher.serving.jobs.journal import SENT
from batcher.serving.jobs.writing import Answered
from tests.support.memory_store import MemoryStore
from tests.support.models import model_spec, tensor

SPEC = model_spec((tensor("x", "FP32", (1,)),), (tensor("y", "FP32", (1,)),))
ADDRESS = "s3://bucket/folder/"
IDENTITY = {"model": "m/1"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Return the store at every address."""
    store = MemoryStore()
    monkeypatch.setattr(stored, "open_bucket", lambda address: store)
    return store


def finish(opened: Opened | DoneBefore) -> None:
    """Answer the first row of a job, and fail the others."""
    assert isinstance(opened, Opened)
    portion = opened.reader.read(opened.reader.begin, 10)
    assert portion is not None
    rows = range(len(portion.places))
    response = InferenceResponse("m", "1", {"y": np.ones((1, 1), "f4")}, 0, 0, 1)
    outcome = Outcome([Answer([0], response)], {row: DecodingError("no") for row in rows[1:]})
    opened.output.add(Answered(portion, [outcome]))
    opened.output.note()
    opened.output.finish()


def asked(source: str, output: str, work: Path, restart: bool = False) -> Asked:
    return Asked(source_at(source), target_at(output, work), "", restart)


def test_a_job_reads_from_a_store_and_puts_its_output_there(
    store: MemoryStore, tmp_path: Path
) -> None:
    store.files["in.jsonl"] = b"[1]\n[2]\n"
    words = asked(ADDRESS + "in.jsonl", ADDRESS + "out.jsonl", tmp_path)
    opened = open_job(words, SPEC, IDENTITY)
    finish(opened)
    words.target.send(opened.files)
    assert store.files["out.jsonl"] == b'{"y":[1.0]}\nnull\n'
    assert b'"line": 2' in store.files["out.jsonl.errors.jsonl"]
    assert [path.name for path in words.target.path.parent.iterdir()] == ["out.jsonl.journal"]
    again = open_job(asked(ADDRESS + "in.jsonl", ADDRESS + "out.jsonl", tmp_path), SPEC, IDENTITY)
    assert isinstance(again, DoneBefore)
    assert again.record.stage == SENT
    store.files["in.jsonl"] = b"[3]\n"
    with pytest.raises(ConfigError, match="the input changed since this job began"):
        open_job(asked(ADDRESS + "in.jsonl", ADDRESS + "out.jsonl", tmp_path), SPEC, IDENTITY)


def test_an_output_that_could_not_be_put_is_put_by_the_next_run(
    store: MemoryStore, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("[1]\n")
    store.files["out.jsonl.errors.jsonl"] = b"of an earlier job"
    words = asked(str(source), ADDRESS + "out.jsonl", tmp_path)
    opened = open_job(words, SPEC, IDENTITY)
    finish(opened)
    store.away = True
    with pytest.raises(ConfigError, match="the same command puts the output there again"):
        words.target.send(opened.files)
    store.away = False
    again = open_job(words, SPEC, IDENTITY)
    assert isinstance(again, DoneBefore)
    words.target.send(again.files)
    assert set(store.files) == {"out.jsonl"}


def test_an_output_of_the_store_that_no_job_has_written_is_not_overwritten(
    store: MemoryStore, tmp_path: Path
) -> None:
    store.files |= {"in.jsonl": b"[1]\n", "out.jsonl": b"mine"}
    with pytest.raises(ConfigError, match="got one that no job of this machine has written"):
        open_job(asked(ADDRESS + "in.jsonl", ADDRESS + "out.jsonl", tmp_path), SPEC, IDENTITY)
    words = asked(ADDRESS + "in.jsonl", ADDRESS + "out.jsonl", tmp_path, restart=True)
    opened = open_job(words, SPEC, IDENTITY)
    finish(opened)
    words.target.send(opened.files)
    assert store.files["out.jsonl"] == b'{"y":[1.0]}\n'


def test_a_folder_of_a_store_gives_its_files_in_order(store: MemoryStore) -> None:
    store.files |= {"p/b.png": b"b", "p/a.png": b"a", "p/.x": b"", "other/c": b"c"}
    source = source_at("s3://bucket/p")
    assert source.is_folder
    assert source.names() == ["a.png", "b.png"]
    assert source.read("a.png") == b"a"
    before = source.facts()
    store.files["p/a.png"] = b"A"
    assert source_at("s3://bucket/p").facts() != before


def test_a_folder_of_this_machine_gives_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "in/a.png", ".hidden", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = source_at(str(tmp_path))
    assert source.names() == ["b.png", "in/a.png"]
    assert source.read("in/a.png") == b"in/a.png"
    before = source.facts()
    (tmp_path / "in/a.png").write_text("other")
    assert source_at(str(tmp_path)).facts() != before


def test_what_is_not_there_is_said(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a file or a folder; got s3://.*: there is"):
        source_at("s3://bucket/none.jsonl")
    with pytest.raises(ConfigError, match=r"expected a file or a folder; got .*: there is none"):
        source_at(str(tmp_path / "none.jsonl"))
    store.away = True
    with pytest.raises(ConfigError, match="the input: the store is away"):
        source_at("s3://bucket/none.jsonl")


def test_names_of_other_kinds_are_refused_before_anything_is_looked_at() -> None:
    check_names("s3://bucket/pictures/", "out.parquet")
    check_names("pictures", "out.csv")
    with pytest.raises(ConfigError, match=r"the output: expected JSON lines .* got out\.txt"):
        check_names("in.jsonl", "out.txt")
    with pytest.raises(ConfigError, match=r"the input: expected JSON lines .* got in\.json"):
        check_names("in.json", "out.csv")


def test_an_input_without_rows_for_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    table = model_spec((tensor("a", "INT32", ()), tensor("c", "INT32", ())))
    words = Asked(source_at(str(tmp_path / "in.csv")), Target(tmp_path / "out.csv"), "", False)
    with pytest.raises(ConfigError, match="expected a header of a, c"):
        open_job(words, table, IDENTITY)
    assert not (tmp_path / "out.csv.journal").exists()


def test_an_output_is_apart_from_the_input(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    inside, linked = str(tmp_path / "a.jsonl"), str(tmp_path / "link/a.jsonl")
    pairs = [
        (inside, inside),
        (inside, linked),
        (str(tmp_path), inside),
        ("s3://b/a.jsonl", "S3://b/a.jsonl"),
        ("s3://b/f/", "s3://b/f/a.jsonl"),
        (f"{inside}.errors.jsonl", inside),
    ]
    for source, output in pairs:
        with pytest.raises(ConfigError, match="expected a place apart from the input"):
            check_names(source, output)
    check_names(inside, str(tmp_path / "b.jsonl"))


def test_what_is_no_file_is_refused_before_anybody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.jsonl")
    with pytest.raises(ConfigError, match="expected a file or a folder"):
        source_at(str(tmp_path / "in.jsonl"))
    with pytest.raises(ConfigError, match=r"expected files in the folder; got in\.jsonl"):
        source_at(str(tmp_path)).facts()


def test_links_lead_out_of_a_folder_only_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").symlink_to("a")
    assert source_at(str(folder), takes_links=False).read("b") == b"a"
    (folder / "c").symlink_to(tmp_path / "secret")
    assert source_at(str(folder)).read("c") == b"s"
    source = source_at(str(folder), takes_links=False)
    with pytest.raises(ConfigError, match="got a link: c"):
        source.facts()
    with pytest.raises(ConfigError, match="got a link: c"):
        source.read("c")


def test_a_file_that_is_too_large_for_a_row_fails_alone(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 2)
    (tmp_path / "a").write_text("abc")
    store.files |= {"p/a": b"abc", "p/b": b""}
    for source in (source_at(str(tmp_path)), source_at("s3://bucket/p")):
        with pytest.raises(DecodingError, match="expected a file of at most 2 bytes; got 3"):
            source.read("a")
    assert source.read("b") == b""
