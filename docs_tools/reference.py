#!/usr/bin/env python3
"""Write the pages of docs/reference/ from the code.

    python docs_tools/reference.py

A test fails while the pages are not what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from docs_tools.configuration import ROOT, model_page, settings_page
from docs_tools.interfaces import commands_page, metrics_page, routes_page
from docs_tools.python_api import python_page

FOLDER = ROOT / "docs" / "reference"
PAGES = {
    "settings.md": settings_page,
    "model_yaml.md": model_page,
    "routes.md": routes_page,
    "metrics.md": metrics_page,
    "commands.md": commands_page,
    "python.md": python_page,
}
NOTE = "<!-- Made from the code by `make reference`: change the code, not this page. -->\n"


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    return {name: f"{NOTE}{page().rstrip()}\n" for name, page in PAGES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
        print((FOLDER / name).relative_to(ROOT))
