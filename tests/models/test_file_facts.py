"""What betrays that a file has changed, and copies that nobody else can change."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from zlib import crc32

import pytest

from batcher.errors import ModelLoadError
from batcher.models import file_facts
from batcher.models.file_facts import facts_of, own_copy, unchanged

TIMES = (10**18, 10**18)


def written(path: Path, text: str) -> Path:
    """Write a file whose time of change is always the same."""
    path.write_text(text)
    os.utime(path, ns=TIMES)
    return path


def replaced(path: Path) -> None:
    """Put another file of the same size and time in the file's place."""
    os.replace(written(path.with_name("new"), "two"), path)


def written_in_place(path: Path) -> None:
    """Write into the file, and set its time back."""
    written(path, "two")


def written_by_mapping(path: Path) -> None:
    """Write into the file through memory, which some file systems do not time."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = b"two"
    os.utime(path, ns=TIMES)


def turned(path: Path) -> None:
    """Have the link lead to another file of the same size and time."""
    new = path.with_name("new link")
    new.symlink_to(written(path.with_name("two"), "two"))
    os.replace(new, path)


@pytest.mark.parametrize("change", [replaced, written_in_place, written_by_mapping, turned])
def test_a_file_of_the_same_size_and_time_is_known_to_be_another(
    tmp_path: Path, change: object
) -> None:
    path = tmp_path / "file"
    if change is turned:
        path.symlink_to(written(tmp_path / "one", "one"))
    else:
        written(path, "one")
    before = facts_of(path)
    assert facts_of(path, before) == before
    assert callable(change)
    change(path)
    after = facts_of(path, before)
    assert after != before
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)


def test_the_content_betrays_a_change_that_all_else_hides(tmp_path: Path) -> None:
    path = written(tmp_path / "file", "one")
    before = facts_of(path)
    written(path, "two")
    after = facts_of(path, before)
    assert after._replace(ctime_ns=before.ctime_ns) != before


def test_a_look_rests_between_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr("time.sleep", rests.append)
    monkeypatch.setattr("batcher.models.file_facts.PIECE_BYTES", 10)
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(range(25)))
    assert facts_of(file).checksum == crc32(bytes(range(25)))
    assert len(rests) == 2


def test_large_files_are_read_only_if_they_have_just_been_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "file", "one")
    monkeypatch.setattr(file_facts, "MAX_READ_BYTES", 2)
    now = path.stat().st_ctime_ns
    monkeypatch.setattr(file_facts.time, "time_ns", lambda: now + file_facts.FRESH_NS - 1)
    fresh = facts_of(path)
    monkeypatch.setattr(file_facts.time, "time_ns", lambda: now + file_facts.FRESH_NS)
    assert fresh.checksum is not None
    assert facts_of(path).checksum is None
    assert facts_of(path, fresh) == fresh
    assert facts_of(path, facts_of(path)) == facts_of(path)


def test_a_file_that_changes_while_it_is_read_is_refused_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path / "weights.bin", "one")
    with unchanged([path]):
        pass
    with (
        pytest.raises(ModelLoadError, match=r"weights.bin: expected a file that stays as it is"),
        unchanged([path]),
    ):
        written(path, "two")


def test_a_copy_keeps_what_the_file_was(tmp_path: Path) -> None:
    path = written(tmp_path / "weights.bin", "one" * 1000)
    with own_copy(path) as copy:
        path.write_text("")
        assert copy.read_text() == "one" * 1000
