#!/usr/bin/env python3
"""Prepare the site of docs/, and finish the site that was built; `make docs` does both.

    python docs_tools/site.py prepare    docs/ -> build/docs, from which zensical builds build/site
    python docs_tools/site.py finish     build/site: no foreign server, no dead link

Pages of docs/ link to sources, tests and results, so that readers on a forge find them. A site has
pages alone. So `prepare` copies the files behind such links, and turns the links: Markdown becomes
a page of the site, a picture stays one, and any other file becomes a text. A link to a folder
becomes its words.

`finish` puts a script of our own (`worker_shim.js`) in the place of the one script that the builder
would have browsers load from a foreign server. It fails if a page has a link that leads nowhere, or
loads something from elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
DOCS, PREPARED, SITE = ROOT / "docs", ROOT / "build" / "docs", ROOT / "build" / "site"
ELSEWHERE = "repository"
"""The folder of the site for files that do not stand in docs/."""

_FOREIGN_SHIM = "https://unpkg.com/iframe-worker/shim"
_SHIM = ROOT / "docs_tools" / "worker_shim.js"

_PICTURES = {".svg", ".png"}
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LOADED = {"script": "src", "img": "src", "source": "srcset", "iframe": "src"}
_NOT_LOADED = {"canonical", "alternate", "prev", "next"}


def prepare(docs: Path = DOCS, prepared: Path = PREPARED, root: Path = ROOT) -> None:
    """Copy docs/ to `prepared`, with the files outside that its links lead to."""
    shutil.rmtree(prepared, ignore_errors=True)
    shutil.copytree(docs, prepared)
    waiting = {page: prepared / page.relative_to(docs) for page in docs.rglob("*.md")}
    done: set[Path] = set()
    while waiting:
        source, target = waiting.popitem()
        done.add(source)
        pages = _Pages(source, target, docs, prepared, root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(pages.turned())
        waiting |= {page: place for page, place in pages.found.items() if page not in done}


class _Pages:
    """Turns the links of one page, and notes the other pages that it leads to.

    Attributes:
        found: pages outside of docs/ that must be prepared too, and their places.
    """

    def __init__(self, source: Path, target: Path, docs: Path, prepared: Path, root: Path) -> None:
        self._source = source
        self._target = target
        self._docs = docs
        self._prepared = prepared
        self._root = root
        self.found: dict[Path, Path] = {}

    def turned(self) -> str:
        """Return the page's text with its links turned; code stays as it is."""
        text, parts, end = self._source.read_text(), [], 0
        for fence in _FENCE.finditer(text):
            parts += [_LINK.sub(self._turn, text[end : fence.start()]), fence[0]]
            end = fence.end()
        return "".join([*parts, _LINK.sub(self._turn, text[end:])])

    def _turn(self, link: re.Match[str]) -> str:
        words, target = link.groups()
        file, mark, anchor = target.partition("#")
        if "://" in target or not file:
            return link[0]
        path = (self._source.parent / file).resolve()
        if path.is_dir():
            return words
        place = self._place(path)
        if place is None:
            return words
        return f"[{words}]({os.path.relpath(place, self._target.parent)}{mark}{anchor})"

    def _place(self, path: Path) -> Path | None:
        """Return where the site has a file of the repository; None if it does not exist."""
        if path == self._root / "README.md":
            return self._prepared / "index.md"
        if path.is_relative_to(self._docs):
            return self._prepared / path.relative_to(self._docs)
        if not path.is_file():
            return None
        place = self._prepared / ELSEWHERE / path.relative_to(self._root)
        if path.suffix == ".md":
            self.found[path] = place
            return place
        if path.suffix not in _PICTURES:
            place = place.with_name(f"{place.name}.txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        return place


class _Links(HTMLParser):
    """Collects what a page links to, what it loads, and the names of its places."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        values = {name: value or "" for name, value in attrs}
        self.names |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in _LOADED and values.get(_LOADED[tag]):
            self.loads.append(values[_LOADED[tag]])
        if tag == "link" and not _NOT_LOADED & set(values.get("rel", "").split()):
            self.loads.append(values["href"])


def problems(site: Path = SITE) -> list[str]:
    """Return the dead links of a site, and what its pages load from elsewhere."""
    pages = {}
    for path in site.rglob("*.html"):
        pages[path] = _Links()
        pages[path].feed(path.read_text())
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # shown at any address, so its links start at the root
            continue
        title = path.relative_to(site)
        found += [f"{title} loads {each}" for each in page.loads if urlsplit(each).netloc]
        for target in (*page.links, *page.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            anchor = unquote(parts.fragment)
            if not file.is_file():
                found.append(f"{title}: {target} is not there")
            elif anchor and file in pages and anchor not in pages[file].names:
                found.append(f"{title}: {target} is no place of the page")
    return found


def finish(site: Path = SITE) -> None:
    """Have the pages of a site load our own script, which lets a page search from the disk."""
    place = site / "assets" / "javascripts" / _SHIM.name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_SHIM, place)
    for page in site.rglob("*.html"):
        own = os.path.relpath(place, page.parent)
        page.write_text(page.read_text().replace(_FOREIGN_SHIM, own))


if __name__ == "__main__":
    if sys.argv[1:] == ["prepare"]:
        prepare()
    elif sys.argv[1:] == ["finish"]:
        finish()
        if found := problems():
            sys.exit("\n".join(found))
    else:
        sys.exit("expected prepare or finish")
