"""Adding an extra to a checkout does not compile again what is compiled already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).parent.parent
FILES = ("setup.py", "pyproject.toml", "README.md", "batcher/__init__.py")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout of one module, which is compiled: its file is newer than its source."""
    (tmp_path / "batcher").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "compiled_modules.txt").write_text("batcher/small.py\n")
    (tmp_path / "batcher" / "small.py").write_text("NUMBER = 1\n")
    compiled(tmp_path).write_text("compiled")
    written = (tmp_path / "batcher" / "small.py").stat().st_mtime
    os.utime(compiled(tmp_path), (written + 10, written + 10))
    return tmp_path


def compiled(checkout: Path) -> Path:
    return checkout / "batcher" / f"small{EXTENSION_SUFFIXES[0]}"


def build(checkout: Path, **variables: str) -> None:
    """Run what `pip install -e` runs."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=checkout, check=True, env={**os.environ, **variables})


def test_what_is_newer_than_all_sources_stays(checkout: Path) -> None:
    build(checkout, WITHOUT_MYPYC="")
    assert compiled(checkout).read_text() == "compiled"


def test_without_mypyc_nothing_compiled_stays(checkout: Path) -> None:
    build(checkout, WITHOUT_MYPYC="1")
    assert not compiled(checkout).exists()


def test_after_a_change_nothing_stale_stays(checkout: Path) -> None:
    written = compiled(checkout).stat().st_mtime
    os.utime(checkout / "batcher" / "__init__.py", (written + 10, written + 10))
    # Nothing is found that could be compiled, so that the test takes no compiler.
    (checkout / "compiled_modules.txt").write_text("batcher/gone.py\n")
    build(checkout, WITHOUT_MYPYC="")
    assert not compiled(checkout).exists()
