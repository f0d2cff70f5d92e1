"""What the pages for readers name is there: files behind links, functions in files, every room.

Pages go out of date in silence, and a wrong link costs a newcomer more than none. These forms are
checked: links to files of the repository and to headings of pages; links whose text is code, as in
[`Router.answer`](../batcher/frontends/endpoints/routing.py), whose names must stand in the file;
and paths in backquotes, as in `benchmarks/load.py`. Code blocks run in `tests/end_to_end/docs/`;
here stands only that no block is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs_tools.reference import FOLDER, pages
from tests.support import blocks
from tests.support.blocks import ROOT, Block, blocks_of
from tests.test_imports import ENTRIES

PAGES = [*blocks.PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "HOT_PATH.md"]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

RUN_ELSEWHERE = {
    ROOT / "docs" / "models.md": "tests/test_models_page.py",
    ROOT / "docs" / "onnx.md": "tests/test_onnx_page.py",
    ROOT / "docs" / "formats.md": "tests/test_formats_page.py",
    ROOT / "docs" / "exports.md": "tests/test_exports_page.py",
}
"""Pages whose blocks are models that a test of their own checks."""

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_]\w*")
ROOT_FOLDERS = {
    "batcher",
    "tests",
    "benchmarks",
    "docs",
    "docs_tools",
    "deploy",
    "examples",
    "models",
}


def targets(text: str) -> Iterator[tuple[str, str]]:
    """Yield text and target of each link that leads to a file of the repository."""
    for words, target in LINK.findall(text):
        if "://" not in target and not target.startswith("#"):
            yield words, target.partition("#")[0]


def headings(text: str) -> set[str]:
    """Return the anchors of a page, as a forge and the site's builder name them."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", blocks.FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = base = re.sub(r"[^\w -]", "", words).replace(" ", "-")
        count = 0
        while anchor in anchors:
            count += 1
            anchor = f"{base}-{count}"
        anchors.add(anchor)
    return anchors


def broken_anchors(page: Path, text: str) -> list[str]:
    """Return the links to headings that are not on the page behind the link."""
    broken = []
    for _, target in LINK.findall(text):
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if anchor and "://" not in target and path.suffix == ".md" and (not file or path.exists()):
            known = headings(path.read_text() if file else text)
            broken += [target] if anchor not in known else []
    return broken


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links to files that do not exist."""
    return [target for _, target in targets(text) if not (page.parent / target).exists()]


def missing_names(page: Path, text: str) -> list[str]:
    """Return the names in link texts that the Python file behind the link does not have."""
    missing = []
    for words, target in targets(text):
        path, code = page.parent / target, CODE.fullmatch(words)
        if code and path.suffix == ".py" and path.exists() and "/" not in code[1]:
            known = set(NAME.findall(path.read_text())) | {path.stem, "py"}
            missing += [f"{code[1]} in {target}" for name in _names(code[1]) if name not in known]
    return missing


def missing_paths(text: str) -> list[str]:
    """Return the paths in backquotes that lead nowhere in the repository; `x/` is a folder."""
    spans = [code for code in CODE.findall(text) if re.fullmatch(r"[\w./-]+", code)]
    paths = [code for code in spans if "/" in code and code.partition("/")[0] in ROOT_FOLDERS]
    return [path for path in paths if not (ROOT / path).exists()]


def _names(code: str) -> list[str]:
    return NAME.findall(code.partition("(")[0])


@EACH_PAGE
def test_links_lead_to_files(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


@EACH_PAGE
def test_links_lead_to_headings(page: Path) -> None:
    assert broken_anchors(page, page.read_text()) == []


@pytest.mark.parametrize(
    "page",
    [page for page in blocks.PAGES if page not in RUN_ELSEWHERE],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_block_is_of_a_kind_that_runs(page: Path) -> None:
    assert [str(block) for block in blocks_of(page) if not _is_tried(block)] == []


@pytest.mark.parametrize(
    "block",
    [block for page in blocks.PAGES for block in blocks_of(page) if block.quoted is not None],
    ids=str,
)
def test_a_file_is_quoted_as_it_is(block: Block) -> None:
    assert blocks.misquoted(block) == []


def _is_tried(block: Block) -> bool:
    runs = block.language in blocks.RUN | blocks.TEXT or block.quoted is not None
    return runs or block.file is not None or block.when != "test"


@EACH_PAGE
def test_functions_stand_in_the_files_that_they_are_linked_to(page: Path) -> None:
    assert missing_names(page, page.read_text()) == []


@EACH_PAGE
def test_paths_in_backquotes_lead_somewhere(page: Path) -> None:
    assert missing_paths(page.read_text()) == []


@pytest.mark.parametrize(("name", "made"), pages().items(), ids=lambda value: value[:13])
def test_a_page_of_the_reference_is_what_the_code_gives(name: str, made: str) -> None:
    now = (FOLDER / name).read_text()
    assert now == made, "run `make reference`, which is `python docs_tools/reference.py`"


def test_every_page_has_its_place_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = {str(page.relative_to(ROOT / "docs")) for page in blocks.PAGES[1:]}
    assert set(_entries(nav)) == pages, "add the page to `nav` in mkdocs.yml"


def _entries(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [entry for part in parts for entry in _entries(part)]


def test_the_table_of_rooms_has_every_room() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {match[1] for match in re.finditer(r"^\| \d+ \| `([\w.]+)/?` \|", table, re.MULTILINE)}
    assert rooms == ENTRIES


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "routing.py").write_text("class Router:\n    def answer(self): ...\n")
    page = tmp_path / "page.md"
    text = (
        "[`Router.answer`](routing.py), [`Router.reply`](routing.py), [there](gone.md#part), "
        "[elsewhere](https://example.org/x.md), [here](#part), `batcher/riddles.py`, `batcher/`"
    )
    assert broken_links(page, text) == ["gone.md"]
    (tmp_path / "other.md").write_text("# `A` page: two\n\n## Words\n\n## Words\n")
    anchors = "(#here) (other.md#a-page-two) (other.md#words-1) (other.md#words-2) (#gone)"
    linked = "# Here\n" + anchors.replace("(", "[link](")
    assert broken_anchors(page, linked) == ["other.md#words-2", "#gone"]
    assert missing_names(page, text) == ["Router.reply in routing.py"]
    assert missing_paths(text) == ["batcher/riddles.py"]
