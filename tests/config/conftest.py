"""A configuration file written by the test, as the server reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.config import settings as settings_module
from batcher.config.settings import ServerSettings, load_settings

Load = Callable[[str], ServerSettings]


@pytest.fixture(autouse=True)
def memory_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have defaults be those of a machine with memory enough, wherever the tests run."""
    monkeypatch.setattr(settings_module, "_memory_limit", lambda: None)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write `config.yaml` and read it."""

    def write_and_load(text: str) -> ServerSettings:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_settings(path, {})

    return write_and_load
