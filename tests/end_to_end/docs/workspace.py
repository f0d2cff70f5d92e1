"""The folder in which blocks run: looks like the repository, and takes what blocks write."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from tests.support.blocks import ROOT

SHARED = ("examples", "benchmarks", "docs", "deploy", "config.yaml", "constraints.txt", "serve.py")
METACHARACTERS = set("|&;<>$`*?(){}~\n")
PROGRAM = re.compile(r"(?:\.venv/bin/)?(batcher|python)\s")
MODULES = {"batcher": "batcher.app.cli", "pytest": "pytest"}
"""Command to the module that Python runs for it."""


class Workspace:
    """A copy of the repository as far as readers see it; code and examples are linked.

    Attributes:
        folder: where commands run.
        models: where pages write their models.
        served: the repository of the server that all pages share: links to some of `models`.
    """

    def __init__(self, folder: Path) -> None:
        """Fill `folder`."""
        self.folder = folder
        self.models = folder / "models"
        self.served = folder / "served"
        self.models.mkdir()
        self.served.mkdir()
        (self.models / "digits").symlink_to(ROOT / "models" / "digits")
        for name in SHARED:
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        self._write_commands()

    def _write_commands(self) -> None:
        commands = self.folder / ".venv" / "bin"
        commands.mkdir(parents=True)
        python = shlex.quote(sys.executable)
        lines = {name: f"{python} -m {module}" for name, module in MODULES.items()}
        for name, line in {"python": python, **lines}.items():
            (commands / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            (commands / name).chmod(0o755)
        (self.folder / ".curlrc").write_text("silent\nshow-error\n")  # no meter of progress

    @property
    def environment(self) -> dict[str, str]:
        """The variables of commands: the package is the one that is tested."""
        clean = {name: text for name, text in os.environ.items() if not name.startswith("BATCHER_")}
        commands = self.folder / ".venv" / "bin"
        return clean | {
            "PATH": f"{commands}{os.pathsep}{clean['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CURL_HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
            "COLUMNS": "100",
        }

    def serve(self, names: set[str]) -> bool:
        """Link the models called `names`, no others, and return whether that changes anything."""
        before = {path.name for path in self.served.iterdir()}
        for name in before - names:
            (self.served / name).unlink()
        for name in names - before:
            (self.served / name).symlink_to(self.models / name)
        return before != names

    def write(self, path: str, text: str) -> None:
        """Write a file that a page shows."""
        target = self.folder / path
        assert target.resolve().is_relative_to(self.folder), path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def python_arguments(command: str) -> list[str] | None:
    """Return the arguments for Python of a command, or None where a shell is needed.

    A fork can then run the command, without an import of PyTorch.
    """
    plain = re.sub(r"\s#\s.*", "", command.replace("\\\n", " "))
    found = PROGRAM.match(plain)
    if found is None or METACHARACTERS & set(plain):
        return None
    module = MODULES.get(found[1])
    return [*(["-m", module] if module else []), *shlex.split(plain[found.end() :])]


def batcher_arguments(command: str) -> list[str] | None:
    """Return the arguments of a command of `batcher`, or None where a shell is needed."""
    arguments = python_arguments(command)
    return arguments[2:] if arguments and arguments[:2] == ["-m", MODULES["batcher"]] else None


def installs(command: str) -> bool:
    """Return whether a command sets up what runs this test, after a look at what it names.

    Such commands are not run again: the targets of the Makefile, which made the environment of
    this test, run the same ones.
    """
    words = shlex.split(command, comments=True)
    if words[:3] == ["python3", "-m", "venv"]:
        return True
    if len(words) > 1 and Path(words[0]).name in ("pip", "pip3") and words[1] == "install":
        _check_installation(words[2:])
        return True
    if words and words[0] == "make":
        targets = (ROOT / "Makefile").read_text()
        for target in words[1:]:
            assert re.search(rf"^{re.escape(target)}:", targets, re.MULTILINE), target
        return True
    return False


def _check_installation(words: list[str]) -> None:
    setup = (ROOT / "setup.py").read_text()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-c", "-r"):
            assert (ROOT / following).is_file(), following
        if word == "-e":
            assert re.fullmatch(r"\.(\[[\w,-]+\])?", following), following
            extras = re.findall(r"[\w-]+", following)
            assert [extra for extra in extras if f'"{extra}": ' not in setup] == []
