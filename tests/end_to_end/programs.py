"""Programs of others, each in an environment of its own, as `make clients` installs them.

A module of tests is skipped where its program is not installed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.end_to_end.processes import ROOT

FOLDER = Path(os.environ.get("TEST_CLIENTS", ROOT / ".clients")).resolve()
RUN_LIMIT_S = 120
"""Seconds for a program: each takes a few seconds, mostly to start, so more is a failure."""


def installed(path: str) -> Path:
    """Return the program at `path`, or skip the module of tests that needs the program."""
    program = FOLDER / path
    if not program.exists():
        pytest.skip(f"{program} is not there: `make clients` installs it", allow_module_level=True)
    return program


def ended(
    command: Sequence[str | Path], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        command,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
