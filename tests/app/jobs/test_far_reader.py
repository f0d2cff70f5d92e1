"""A large file of text, read in another process: the same portions, and when there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.app.jobs import opening
from batcher.app.jobs.far_reader import FarReader
from batcher.app.jobs.far_reading import MOST_PORTIONS, FarFile, FileState, state_of
from batcher.app.jobs.opening import Asked, Opened, open_job
from batcher.app.jobs.sources import source_at
from batcher.app.jobs.targets import target_at
from batcher.codecs.row_files.text_reading import TextReader, json_lines_reader
from batcher.core.portions import Portion, RowReader
from batcher.errors import ConfigError, Unavailable
from batcher.workers.codec_process.process import CodecProcess
from tests.support.models import model_spec, tensor

SPEC = model_spec((tensor("x", "FP32", (2,)),), (tensor("y", "FP32", (1,)),))
ROWS = 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of more portions than one call brings, some of whose lines are bad."""
    lines = [f"[{row},{row / 7}]" for row in range(ROWS * MOST_PORTIONS * 2 + 3)]
    lines[5] = "no row"
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def near(path: Path) -> Iterator[TextReader]:
    """The reader in this process."""
    with path.open("rb") as file:
        yield json_lines_reader(file, SPEC, 0)


def state(path: Path) -> FileState:
    with path.open("rb") as file:
        return state_of(file)


@pytest.fixture
def far(path: Path, near: TextReader) -> Iterator[FarReader]:
    """The reader in the other process."""
    far = FarReader(near, FarFile(path, state(path), SPEC, "", 0))
    yield far
    far.close()


def portions(reader: RowReader, position: list[int]) -> list[Portion]:
    found = []
    while (portion := reader.read(position, ROWS)) is not None:
        found.append(portion)
        position = portion.after
    assert reader.read(position, ROWS) is None
    return found


def plain(portion: Portion) -> tuple[object, ...]:
    """Return what can be compared of a portion."""
    groups = [(list(group.rows), group.inputs["x"].tobytes()) for group in portion.groups]
    bad = {row: (type(error), str(error)) for row, error in portion.bad.items()}
    return list(portion.places), groups, bad, portion.after, portion.done


def test_portions_are_those_of_the_reader_in_this_process(far: FarReader, near: TextReader) -> None:
    expected = list(map(plain, portions(near, near.begin)))
    assert list(map(plain, portions(far, far.begin))) == expected
    # A job that goes on begins anywhere.
    assert list(map(plain, portions(far, expected[2][3]))) == expected[3:]


def test_a_file_that_takes_the_place_of_the_one_that_was_opened_is_not_read(
    path: Path, near: TextReader
) -> None:
    noted = state(path)
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(noted.time, noted.time))
    other.rename(path)
    far = FarReader(near, FarFile(path, noted, SPEC, "", 0))
    with pytest.raises(ConfigError, match=r"expected in\.jsonl as it was when this job began"):
        far.read(far.begin, ROWS)
    far.close()


def test_a_job_notes_the_file_that_is_open_not_what_has_come_to_lie_at_its_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reader_of = state(path), opening.reader_of

    def replace_and_read(*arguments: Any) -> RowReader:
        other = path.with_name("other")
        other.write_text("[1,2]\n")
        other.rename(path)
        return reader_of(*arguments)

    monkeypatch.setattr(opening, "reader_of", replace_and_read)
    source, target = source_at(str(path)), target_at(str(path.with_name("out.jsonl")), None)
    job = open_job(Asked(source, target, "", False), SPEC, {})
    assert isinstance(job, Opened)
    job.close()
    noted = job.output.record.identity["input"]
    assert (noted["bytes"], noted["time"]) == (before.size, before.time)


def opened(path: Path, may_start: bool) -> RowReader:
    target = target_at(str(path.with_name("out.jsonl")), None)
    job = open_job(Asked(source_at(str(path)), target, "", True, may_start=may_start), SPEC, {})
    assert isinstance(job, Opened)
    job.close()
    return job.reader


def test_only_large_files_of_jobs_that_may_start_a_process_have_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "cores", lambda: 2)
    assert not isinstance(opened(path, True), FarReader)
    monkeypatch.setattr(opening, "LEAST_BYTES", os.path.getsize(path))
    assert not isinstance(opened(path, False), FarReader)
    assert isinstance(opened(path, True), FarReader)
    arrays = path.with_name("in.npz")
    np.savez(arrays, x=np.zeros((1000, 2), "f4"))
    assert not isinstance(opened(arrays, True), FarReader)


def test_a_job_reads_by_itself_where_no_process_can_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise Unavailable("there is no process")

    monkeypatch.setattr(opening, "cores", lambda: 2)
    monkeypatch.setattr(opening, "LEAST_BYTES", 0)
    monkeypatch.setattr(CodecProcess, "send", refuse)
    assert isinstance(opened(path, True), TextReader)
