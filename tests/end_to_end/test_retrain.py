"""Retrain and swap, end to end: `examples/retrain/` as a person runs it."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.end_to_end.processes import ROOT


def test_a_good_version_is_promoted_and_a_bad_one_is_taken_back() -> None:
    command = [sys.executable, str(ROOT / "examples" / "retrain" / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert "version 2 is promoted" in told
    assert re.search(r"version 3 is rolled back: \d+ of \d+ answers of version 3 failed", told)
    assert "of 200 requests afterwards 0 failed" in told
    assert "Traceback" not in done.stderr
    assert "is not kept" not in done.stderr
