"""docs/models.md: `batcher check` finds nothing wrong with its examples, and its table is right.

An example is a block of YAML, `model.yaml`, and the block of Python behind it, `model.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checking import check, messages
from tests.support.kinds import table
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
EXAMPLE = re.compile(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?^```yaml\n(.*?)^```\n\s*^```python\n(.*?)^```", re.S | re.M
)
EXAMPLES = EXAMPLE.findall(PAGE.read_text())


@pytest.mark.parametrize(
    ("head", "source"),
    [example[1:] for example in EXAMPLES],
    ids=[example[0].replace("`", "") for example in EXAMPLES],
)
def test_an_example_is_a_model_without_breaches(folders: Folders, head: str, source: str) -> None:
    assert messages(check(folders.write(head, {"model.py": source}))) == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```python\n") > 0


def test_the_table_of_kinds_is_that_of_the_tests() -> None:
    assert table() in PAGE.read_text()
