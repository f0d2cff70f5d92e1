"""Temporary folders: none is left, whatever becomes of its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.core.own_folder import OwnFolder

CHILD = """
import os
from batcher.core.own_folder import OwnFolder
folder = OwnFolder("batcher-kind-")
print(folder.path, flush=True)
input()
os._exit(0)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_the_folder_goes_with_the_object(temporary: Path) -> None:
    folder = OwnFolder("batcher-kind-")
    (folder.path / "library.so").write_bytes(b"")
    assert folder.path.stat().st_mode & 0o077 == 0
    del folder
    assert list(temporary.iterdir()) == []


def test_the_folder_may_be_removed_before(temporary: Path) -> None:
    folder = OwnFolder("batcher-kind-")
    folder.remove()
    assert list(temporary.iterdir()) == []
    folder.remove()


def test_a_folder_of_a_process_that_runs_stays_and_of_one_that_was_killed_goes() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        OwnFolder("batcher-kind-")
        assert left.is_dir()
        child.kill()
        child.wait()
        assert left.is_dir()
        OwnFolder("batcher-kind-")
        assert not left.exists()


def test_a_link_of_that_name_is_left_alone(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "batcher-kind-link").symlink_to("elsewhere")
    OwnFolder("batcher-kind-")
    assert (temporary / "elsewhere").is_dir()


def test_without_a_temporary_folder_it_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(prefix: str, dir: str) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", nowhere)
    with pytest.raises(OSError, match="No usable temporary directory"):
        OwnFolder("batcher-kind-")


def test_a_copy_of_the_process_that_ends_leaves_the_folder_to_the_process(temporary: Path) -> None:
    script = """
import os, sys
from batcher.core.own_folder import OwnFolder
folder = OwnFolder("batcher-kind-")
if not os.fork():
    sys.exit()
os.wait()
assert folder.path.is_dir()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert list(temporary.iterdir()) == []


def test_folders_of_another_kind_and_in_another_place_are_left_alone(temporary: Path) -> None:
    (temporary / "batcher-other-1").mkdir()
    (temporary / "parent").mkdir()
    folder = OwnFolder("batcher-kind-", str(temporary / "parent"))
    assert folder.path.parent == temporary / "parent"
    assert (temporary / "batcher-other-1").is_dir()
