"""The names under `ts` are the same for all models of the process."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from batcher.models.torchserve.modules import put_modules
from batcher.models.version_code import forget_plain_names
from batcher.models.version_code.names import package_name
from batcher.models.version_code.plain_names import use_plain_names


def test_a_model_that_loads_meanwhile_does_not_get_the_names_for_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "ts"]:
        monkeypatch.delitem(sys.modules, name)
    use_plain_names(package_name(str(tmp_path), 1))
    put_modules()
    forget_plain_names()
    assert import_module("ts.context").Context
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'ts\.protocol'"):
        import_module("ts.protocol")
