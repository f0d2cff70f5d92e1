"""The name under which pip finds this server: never one that belongs to somebody else.

On PyPI `batcher` is another program. A line such as `pip install batcher` would install a
stranger's code.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME = "batcher-inference"
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".sh", ".html", ".ipynb"}
NAMES_WITHOUT_SUFFIX = {"Makefile", "Containerfile", "Dockerfile"}
NOT_OURS = {"build", "dist", "results", "__pycache__"}

INSTALLERS = re.compile(
    r"\b(?:install|pip download|pip wheel|uv add|poetry add|uvx|uv tool run|pipx run)\b"
    r"[^\n`;&|]*?[\s'\"](batcher)(?=$|[\s'\"`\[=<>~!,;)])",
    re.MULTILINE,
)
"""`batcher` among the arguments of an installer: `pip install -U batcher`."""
EXTRA = re.compile(r"(?<![\w./-])(batcher)\[[a-z]")
"""An extra of the other program, in whatever command: `batcher[client]`."""


def strangers(text: str) -> list[str]:
    """Return the places of `text` that would install somebody else's `batcher`."""
    found = [*INSTALLERS.finditer(text), *EXTRA.finditer(text)]
    return [text[match.start() : match.end() + 20] for match in found]


def texts() -> list[Path]:
    """Return the repository's texts, without what is measured, built or hidden."""
    files = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if any(part.startswith(".") or part in NOT_OURS for part in parts[:-1]):
            continue
        if path.suffix in SUFFIXES or path.name in NAMES_WITHOUT_SUFFIX:
            files.append(path)
    return files


def test_no_text_suggests_to_install_a_stranger_s_package() -> None:
    found = {
        str(path.relative_to(ROOT)): places
        for path in texts()
        if path != Path(__file__) and path.is_file() and (places := strangers(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "pip install batcher",
        "pip install -U 'batcher'",
        "python -m pip install -c constraints.txt batcher[grpc]",
        "uv pip install batcher==0.1",
        "uvx batcher serve net.onnx",
        "pipx install batcher",
        "expected the extra `batcher[onnx]`",
    ],
)
def test_a_line_that_would_install_it_is_found(line: str) -> None:
    assert strangers(line)


@pytest.mark.parametrize(
    "line",
    [
        f"pip install '{NAME}[grpc]'",
        f"pip install {NAME}-client",
        "pip install -c constraints.txt -e . && .venv/bin/batcher serve",
        "pip install -e '.[grpc]'; batcher serve",
        "pip install ./batcher-0.1.whl",
        "import batcher",
    ],
)
def test_a_line_that_installs_ours_is_not(line: str) -> None:
    assert not strangers(line)


def test_the_name_in_setup_py_is_the_one_that_texts_tell() -> None:
    assert f'name="{NAME}"' in (ROOT / "setup.py").read_text()
