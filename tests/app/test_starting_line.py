"""A person at a terminal sees at once that the server starts; a log is not disturbed by it."""

from __future__ import annotations

import sys

import click
import pytest

from batcher.app.cli import serve


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_alone_is_told_before_anything_is_read(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with pytest.raises(click.ClickException, match="there is none"):
        serve.main(["no_such_file.onnx"], standalone_mode=False)
    assert ("is starting" in capsys.readouterr().err) is terminal
