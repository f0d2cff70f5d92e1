"""The pages of docs/reference/ say all that the code says; test_docs.py has them up to date."""

from __future__ import annotations

from batcher.config.values import TakesEffect
from docs_tools.configuration import defaults
from docs_tools.docstrings import section, table
from docs_tools.reference import FOLDER, pages

MADE = pages()


def test_every_page_is_made() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(MADE)


def test_every_setting_has_its_default_its_reason_and_when_it_takes_effect() -> None:
    rows = [line.split(" | ") for line in MADE["settings.md"].splitlines() if "| `" in line]
    for path, default in defaults().items():
        if path not in {("defaults",), ("models",)}:
            (row,) = [row for row in rows if row[0] == f"| `{path[-1]}`"]
            assert default.value in row[1]
            assert len(row[3].split()) >= 3
    effects = {effect.value for effect in TakesEffect}
    assert effects == {row[4].removesuffix(" |") for row in rows if len(row) == 5}


def test_items_of_a_docstring_go_on_over_lines() -> None:
    text = """What it is.

    Attributes:
        one: the first
            thing.
        two: the second: thing.

    Raises:
        Three: never.
    """
    assert section(text, "Attributes") == {"one": "the first thing.", "two": "the second: thing."}
    assert section(text, "Args") == {}


def test_a_cell_keeps_its_bars() -> None:
    assert table(["a"], [["b | c\nd"]]) == "| a |\n| --- |\n| b \\| c d |\n"
