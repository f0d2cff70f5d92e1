"""The code blocks of the README and of the pages in docs/, and how each of them is held true.

Nothing on a page goes untried. What a block is follows from its language and its first line:

| language | what becomes of the block |
|---|---|
| `console` | lines behind `$ ` run in a shell, against a server; the other lines are their output |
| `python` | the page's blocks run in their order, as one program |
| `yaml` | settings of `config.yaml` or a `model.yaml`, checked by the server's own reader |
| any | a first line `# models/x/1/model.py` makes a file of the block, before the next block runs |
| any | a first line with a path of the repository (`# deploy/…`) quotes that file, line by line |
| `text` | text; directly behind a block of Python, `text` is what the block prints |

A line in italics above a block, which readers see too, takes the block out of `make test`:

    *Run by `make integration`: it needs a compiler.*
    *Not run: it needs a GPU.*
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"\*(Run by `make integration`|Not run): [^*\n]+\*\n+ *$")
FILE = re.compile(r"\A(?:#|//|--|<!--) ([\w./-]+/[\w.-]+|[\w-]+\.\w+)(?: -->)?\s*(?:#.*)?\n")
RUN = {"console", "python", "yaml"}
TEXT = {"", "text"}

When = Literal["test", "integration", "never"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the file.
        line: number of the line with the opening fence.
        language: what stands behind the fence.
        text: the lines between the fences, without the indentation of the fence.
        when: what runs the block.
    """

    page: Path
    line: int
    language: str
    text: str
    when: When

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path in the block's first line, of a file that the block is; None if it is none."""
        found = FILE.match(self.text) if self.language not in {"console", *TEXT} else None
        return found[1] if found and found[1] != "config.yaml" else None

    @property
    def quoted(self) -> Path | None:
        """The file of the repository that the block shows lines of."""
        path = ROOT / self.file if self.file else None
        return path if path is not None and path.is_file() else None


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in their order."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found[2],
            re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE) if found[1] else found[3],
            _when(text[: found.start()]),
        )
        for found in FENCE.finditer(text)
    ]


def _when(above: str) -> When:
    mark = MARK.search(above)
    if mark is None:
        return "test"
    return "never" if mark[1] == "Not run" else "integration"


def misquoted(block: Block) -> list[str]:
    """Return the lines that a block shows and the quoted file does not have, in this order."""
    assert block.quoted is not None
    lines = iter(line.strip() for line in block.quoted.read_text().splitlines())
    shown = [line.strip() for line in block.text.splitlines()[1:]]
    return [line for line in shown if line and line != "…" and line not in lines]
