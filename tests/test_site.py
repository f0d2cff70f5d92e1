"""The site of docs/: links out of docs/ lead to copies, and what is dead or foreign is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs_tools.site import finish, prepare, problems


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, text in {
        "README.md": "# Home",
        "WORK.md": "[page](docs/a/page.md#part) and [code](code.py)",
        "code.py": "x = 1\n",
        "docs/index.md": "# Home",
        "docs/a/page.md": (
            "[home](../../README.md) [work](../../WORK.md) [`code`](../../code.py) "
            "[folder](../../docs) [here](#part) [site](https://example.org)\n\n"
            "```text\n[code](../../code.py)\n```\n\n![picture](../p.svg) ![result](../../r.svg)\n"
        ),
        "r.svg": "<svg/>",
        "docs/p.svg": "<svg/>",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_links_out_of_docs_lead_to_copies(root: Path) -> None:
    prepared = root / "build" / "docs"
    prepare(root / "docs", prepared, root)
    assert (prepared / "a" / "page.md").read_text() == (
        "[home](../index.md) [work](../repository/WORK.md) [`code`](../repository/code.py.txt) "
        "folder [here](#part) [site](https://example.org)\n\n"
        "```text\n[code](../../code.py)\n```\n\n"
        "![picture](../p.svg) ![result](../repository/r.svg)\n"
    )
    work = prepared / "repository" / "WORK.md"
    assert work.read_text() == "[page](../a/page.md#part) and [code](code.py.txt)"
    assert (prepared / "repository" / "code.py.txt").read_text() == "x = 1\n"
    assert (prepared / "p.svg").is_file()


def test_dead_links_and_foreign_servers_are_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<h1 id="top">Top</h1><a href="#top">1</a><a href="#gone">2</a><a href="other.html">3</a>'
        '<a href="gone.html">4</a><a href="https://example.org">5</a><img src="https://x.org/p">'
        '<link rel="canonical" href="https://x.org"><link rel="stylesheet" href="//x.org/s.css">'
    )
    (tmp_path / "other.html").write_text('<a href="index.html#top">1</a>')
    assert sorted(problems(tmp_path)) == [
        "index.html loads //x.org/s.css",
        "index.html loads https://x.org/p",
        "index.html: #gone is no place of the page",
        "index.html: gone.html is not there",
    ]


def test_the_search_s_script_is_our_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    page = tmp_path / "a" / "page.html"
    page.write_text('<script src="https://unpkg.com/iframe-worker/shim"></script>')
    assert problems(tmp_path)
    finish(tmp_path)
    assert problems(tmp_path) == []
    assert '"../assets/javascripts/worker_shim.js"' in page.read_text()
