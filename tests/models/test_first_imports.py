"""When it is told that libraries are imported."""

from __future__ import annotations

import sys

from batcher.models.first_imports import after_first_imports
from tests.support.model_folders import Folders

SOURCE = """
import sys

class Model:
    def __init__(self):
        sys.told_in_test.append("made")
    def predict(self, inputs):
        return {"y": inputs["x"]}

sys.told_in_test.append("imported")
"""


def test_it_is_told_once_between_the_imports_and_the_making_of_the_first_model(
    folders: Folders,
) -> None:
    told: list[str] = []
    sys.told_in_test = told  # type: ignore[attr-defined]  # a place that both codes can reach
    try:
        after_first_imports(lambda: told.append("told"))
        folders.load(folders.python(SOURCE))
        folders.load(folders.python(SOURCE, name="n"))
    finally:
        del sys.told_in_test  # type: ignore[attr-defined]
    assert told.count("told") == 1
    assert told[:3] == ["imported", "told", "made"]
