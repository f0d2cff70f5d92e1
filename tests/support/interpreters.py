"""A fresh interpreter, which has imported nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def printed(program: str) -> str:
    """Return what `program` prints; it can import the package."""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout
