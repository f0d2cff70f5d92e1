"""Folders of unpacked packages: none is left, whatever becomes of its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.models.pytorch.unpacked_folder import UnpackedFolder

CHILD = """
import os
from batcher.models.pytorch.unpacked_folder import UnpackedFolder
folder = UnpackedFolder()
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
    folder = UnpackedFolder()
    (folder.path / "library.so").write_bytes(b"")
    assert folder.path.stat().st_mode & 0o077 == 0
    del folder
    assert list(temporary.iterdir()) == []


def test_the_folder_may_be_removed_before(temporary: Path) -> None:
    folder = UnpackedFolder()
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
        UnpackedFolder()
        assert left.is_dir()
        child.kill()
        child.wait()
        assert left.is_dir()
        UnpackedFolder()
        assert not left.exists()


def test_a_link_of_that_name_is_left_alone(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "batcher-aoti-link").symlink_to("elsewhere")
    UnpackedFolder()
    assert (temporary / "elsewhere").is_dir()


def test_without_a_temporary_folder_it_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(prefix: str) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", nowhere)
    with pytest.raises(OSError, match="No usable temporary directory"):
        UnpackedFolder()
