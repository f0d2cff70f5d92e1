"""The example of docs/exports.md is a model that `batcher check` finds nothing wrong with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.checking import check, messages
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

PAGE = (Path(__file__).parent.parent / "docs" / "exports.md").read_text()
PYTHON, YAML = (
    re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.S | re.M) for kind in ("python", "yaml")
)


def test_the_example_is_exported_and_answers_by_name(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(PYTHON[0], {"__name__": "example"})
    files: dict[str, str | bytes] = {"model.pt2": Path("model.pt2").read_bytes()}
    definition = folders.write(YAML[0], files)
    assert messages(check(definition)) == []
    left, right = np.full((2, 3), 5, "f4"), np.full((2, 3), 2, "f4")
    checked = folders.load(definition)
    assert answers(checked, right=right, left=left)["difference"].tolist() == [[3.0] * 3] * 2


def test_every_block_of_python_is_run() -> None:
    assert len(PYTHON) == 1
