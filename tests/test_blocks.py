"""How code blocks of pages are found, and when what a command prints is what the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import blocks
from tests.support.blocks import Block, blocks_of, misquoted
from tests.support.transcript import Command, commands, differs

PAGE = """
```console
$ run
```

*Run by `make integration`: it needs a compiler.*

```console
$ compile
```

- an item

  *Not run: it needs a GPU.*

  ```python
  # models/m/1/model.py
  x = 1
  ```
"""


def test_blocks_have_their_place_and_say_what_runs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    first, second, third = blocks_of(page)
    assert [str(block) for block in (first, second, third)] == [
        "page.md:2",
        "page.md:8",
        "page.md:16",
    ]
    assert (first.when, second.when, third.when) == ("test", "integration", "never")
    assert third.text == "# models/m/1/model.py\nx = 1\n"
    assert (first.file, third.file) == (None, "models/m/1/model.py")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("# a/b.conf\none\n…\nthree\n", []),
        ("# a/b.conf\nthree\none\n", ["one"]),
        ("# a/b.conf\nfour\n", ["four"]),
    ],
)
def test_a_quoted_file_has_the_lines_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wrong: list[str]
) -> None:
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.conf").write_text("one\ntwo\n  three\n")
    assert misquoted(Block(tmp_path / "page.md", 1, "nginx", text, "test")) == wrong


def test_commands_go_on_and_have_outputs() -> None:
    text = "$ one\nits output\n$ two \\\n  more\n$ for x in 1 2\n> do echo $x\n> done\n1\n2\n"
    assert commands(text) == [
        Command("one", "its output"),
        Command("two \\\n  more", ""),
        Command("for x in 1 2\ndo echo $x\ndone", "1\n2"),
    ]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("", "anything"),
        ("all of it", "all of it\n"),
        ("from … to", "from here to"),
        ("first\n…", "first\nsecond\nthird"),
        ('{"p":0.98757845}', '{"p":0.9875784516}'),
        ("version 1.2.3", "version 1.2.3"),
    ],
)
def test_an_output_is_what_is_shown(shown: str, printed: str) -> None:
    assert differs(shown, printed) == ""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("all of it", "all of it and more"),
        ("from … to", "from here"),
        ('{"p":0.9876}', '{"p":0.9}'),
        ("212.0", "nothing"),
        ("version 1.2.3", "version 1.2.4"),
        ("3 rows", "4 rows"),
    ],
)
def test_an_output_is_not_what_is_shown(shown: str, printed: str) -> None:
    assert differs(shown, printed)
