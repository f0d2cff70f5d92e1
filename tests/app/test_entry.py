"""A start while the package is being compiled ends with words; any other error stays as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NoReturn

import pytest

from batcher.app import cli, entry


def fail() -> NoReturn:
    raise TypeError("interpreted classes cannot inherit from compiled")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a package, of which `queue.py` is imported; its commands fail."""
    (tmp_path / "app").mkdir()
    monkeypatch.setattr(entry, "__file__", str(tmp_path / "app" / "entry.py"))
    (tmp_path / "queue.py").touch()
    module = ModuleType("batcher_queue")
    module.__file__ = str(tmp_path / "queue.py")
    mine = {"batcher_queue": module, "built_in": ModuleType("built_in")}
    monkeypatch.setattr(entry, "sys", SimpleNamespace(modules=mine, exit=sys.exit))
    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setattr(cli, "serve", fail)
    return tmp_path


@pytest.mark.parametrize("begin", [entry.main, entry.serve])
@pytest.mark.parametrize("change", ["compiled", "removed"])
def test_a_start_amid_an_installation_ends_with_words(
    begin: Callable[[], None], change: str, package: Path
) -> None:
    if change == "compiled":
        (package / f"queue{EXTENSION_SUFFIXES[0]}").touch()
    else:
        (package / "queue.py").unlink()
    with pytest.raises(SystemExit, match="the package is being installed") as ended:
        begin()
    assert ended.value.code == entry.MIXED


def test_another_error_is_told_as_it_is(package: Path) -> None:
    with pytest.raises(TypeError, match="interpreted classes"):
        entry.main()
