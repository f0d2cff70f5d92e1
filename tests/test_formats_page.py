"""Each example of docs/formats.md writes a file that is served without a breach of the contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checking import check, messages
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders

PAGE = (Path(__file__).parent.parent / "docs" / "formats.md").read_text()
EXAMPLE = re.compile(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```\n\s*^```yaml\n(.*?)^```", re.S | re.M
)
EXAMPLES = EXAMPLE.findall(PAGE)


@pytest.mark.parametrize(
    ("source", "head"), [each[1:] for each in EXAMPLES], ids=[each[0] for each in EXAMPLES]
)
def test_an_example_is_a_model_without_breaches(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, source: str, head: str
) -> None:
    for library in re.findall(r"^(?:import|from) (\w+)", source, re.M):
        pytest.importorskip(library)
    folder = folders.base / "m" / "1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    exec(source, {"__name__": "example"})
    assert messages(check(folders.write(head), trusted=True)) == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == PAGE.count("```python\n") > 0
