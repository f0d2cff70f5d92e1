"""Programs of others, each in an environment of its own.

Where `make clients` puts them, and what they say when they ran.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.end_to_end.processes import ROOT

FOLDER = Path(os.environ.get("TEST_CLIENTS", ROOT / ".clients")).resolve()
SECONDS = 120
"""Each of them takes a few seconds, most of them for starting; more is a failure."""


def installed(path: str) -> Path:
    """Return one of them; a module of tests that needs it is skipped where it is not there."""
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
        timeout=SECONDS,
        check=False,
    )
