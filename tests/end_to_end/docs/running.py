"""Runs the blocks of one page, in their order."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from batcher.app.cli import main
from batcher.config.model_file import ModelFile
from batcher.config.reading import Source, validate
from batcher.config.settings import ServerSettings, load_settings
from tests.end_to_end.docs.servers import Servers
from tests.end_to_end.docs.workspace import (
    Workspace,
    batcher_arguments,
    installs,
    python_arguments,
)
from tests.end_to_end.processes import run_python
from tests.support.blocks import Block, blocks_of, misquoted
from tests.support.transcript import Command, commands, differs

COMMAND_LIMIT_S = 300
IN_PROCESS = {"check", "init"}  # others write to caches, or wait for signals
TELLS_STATUS = ' || echo "exit status $?"'
SERVE = re.compile(r"(?:\.venv/bin/)?batcher serve\b|\.venv/bin/python serve\.py\b")
MODEL_FILE = re.compile(r"models/([\w.-]+)/")
DIGITS = re.compile(r"(?<!examples/)\bdigits\b")
TENSORS = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [4]}]}
WITHOUT_EXAMPLE = {
    "format": "python",
    "class": "model:Model",
    **TENSORS,
    "outputs": [{"name": "y", "dtype": "FP32", "shape": [4]}],
}
"""What is filled in for a piece of a `model.yaml`, so that the piece can be checked."""


class Page:
    """One page while its blocks run.

    The server that all pages share serves what the page has written so far, or the digits model
    where a command speaks of digits: `/predict` asks for the only model there is.
    """

    def __init__(self, path: Path, workspace: Workspace, servers: Servers) -> None:
        """Run nothing yet."""
        self._path = path
        self._workspace = workspace
        self._servers = servers
        self._server = servers.shared
        self._own: list[str] = []
        self._has_written = False
        self._names: dict[str, Any] = {"__name__": "__page__"}
        self._printed = ""

    def run(self, includes: Callable[[Block], bool]) -> list[Block]:
        """Run the blocks that are included, and return them."""
        blocks = [block for block in blocks_of(self._path) if includes(block)]
        before = Path.cwd()
        os.chdir(self._workspace.folder)
        try:
            with asyncio.Runner() as self._loop:
                for block in blocks:
                    try:
                        self._run(block)
                    except BaseException as err:
                        err.add_note(f"in the block at {block}")
                        raise
        finally:
            os.chdir(before)
        return blocks

    def _run(self, block: Block) -> None:
        if block.quoted is not None:
            _hold(misquoted(block), "lines that the file does not have")
        elif block.file is not None:
            self._write(block, block.file)
        elif block.language == "console":
            for command in commands(block.text):
                self._choose_models(command.text)
                self._command(command)
        elif block.language == "python":
            self._choose_models(block.text)
            self._python(block)
        elif block.language == "yaml":
            check_yaml(block.text)
        elif block.language == "text" and self._printed:
            _hold(differs(block.text, self._printed), "what the block prints")
        if block.language != "python":
            self._printed = ""

    def _write(self, block: Block, path: str) -> None:
        self._workspace.write(path, block.text)
        found = MODEL_FILE.match(path)
        self._has_written = True
        if found and found[1] not in self._own:
            self._own.append(found[1])

    def _choose_models(self, text: str) -> None:
        """Have the shared server serve what a block asks for."""
        if self._server is self._servers.shared and "localhost" in text:
            models = {"digits"} if DIGITS.search(text) or not self._own else set(self._own)
            self._servers.show(models, self._has_written)
            self._has_written = False

    def _here(self, text: str) -> str:
        """Return `text` with the address of the server that runs."""
        host, port = self._server.host_and_port
        return text.replace("localhost:8080", f"{host}:{port}")

    def _command(self, command: Command) -> None:
        if SERVE.match(command.text):
            self._serve(command)
        elif not installs(command.text):
            status, printed, errors = self._execute(self._here(command.text))
            expected, output = self._here(command.output), printed + errors
            # Progress, which goes to standard error, is left out on most pages.
            _hold(differs(expected, printed) and differs(expected, output), command.text)
            fails = re.search(r"\bError\b", expected)
            assert status == 0 or fails, f"{command.text}: {status}\n{output}"
            assert expected or '{"error"' not in output, output

    def _execute(self, text: str) -> tuple[int, str, str]:
        """Run a command; return its exit status, and what it wrote to both outputs."""
        asked = text.removesuffix(TELLS_STATUS)
        arguments = python_arguments(asked)
        if arguments is None:
            return self._in_shell(text)
        batcher = batcher_arguments(asked)
        if batcher and batcher[0] in IN_PROCESS:
            result = CliRunner().invoke(main, batcher, prog_name="batcher")
            status, printed, errors = result.exit_code, result.stdout, result.stderr
        else:
            done = run_python(
                *arguments,
                environment=self._workspace.environment,
                working=self._workspace.folder,
                seconds=COMMAND_LIMIT_S,
            )
            status, printed, errors = done.returncode, done.stdout, done.stderr
        if status and asked != text:
            return 0, f"{printed}exit status {status}\n", errors
        return status, printed, errors

    def _in_shell(self, text: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self._workspace.folder,
            env=self._workspace.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def _serve(self, command: Command) -> None:
        """Start a server for the rest of the page where the shared one would not do."""
        arguments = (batcher_arguments(command.text) or ["serve"])[1:]
        if not arguments and not command.output:
            return
        self._server = self._servers.start(arguments)
        printed = "\n".join(self._server.lines) + self._server.errors
        for line in command.output.splitlines():
            expected = self._here(line)
            _hold(differs(f"…{expected}…", printed), command.text)

    def _python(self, block: Block) -> None:
        source = "\n" * block.line + self._here(block.text)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, str(block), "exec", flags, dont_inherit=True)
        with redirect_stdout(StringIO()) as printed:
            if code.co_flags & inspect.CO_COROUTINE:
                self._loop.run(eval(code, self._names))
            else:
                exec(code, self._names)
        self._printed = printed.getvalue()


def _hold(problem: object, what: str) -> None:
    """Fail if there is a problem; `assert` would not tell what it is outside of files of tests."""
    if problem:
        raise AssertionError(f"{what}: {problem}")


def check_yaml(text: str) -> None:
    """Check settings of `config.yaml`, or a `model.yaml` or a piece of one."""
    values = yaml.safe_load(text)
    if values.keys() <= ServerSettings.model_fields.keys():
        flags = {(key,): ("the page", value) for key, value in values.items()}
        load_settings(None, {}, flags)
        return
    known = {field.alias or name for name, field in ModelFile.model_fields.items()}
    assert values.keys() <= known, f"keys of no file: {sorted(values.keys() - known)}"
    validate(ModelFile, Source(WITHOUT_EXAMPLE | values, {(): "the page"}))
