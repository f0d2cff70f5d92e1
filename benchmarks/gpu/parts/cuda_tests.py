"""All tests with the mark `cuda`, which are skipped on machines without a GPU.

Every result is told as soon as it is known: a test that hangs or crashes takes none of the others.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable

from benchmarks.gpu.figures import Figures
from benchmarks.reporting import ROOT

MARK = re.compile(r"mark\.cuda\b")
RESULT = re.compile(r"\S+?::(?P<name>.+) (?P<result>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
"""What `pytest -v` prints of a test that has ended."""

OPTIONS = ("-vv", "-m", "cuda", "-p", "no:cacheprovider", "--no-header", "--color=no")
"""Twice `v`, since pyproject.toml says `q` once."""


def main() -> None:
    """Run the tests, and tell the result of each, and how many passed, failed and were skipped."""
    figures = Figures("cuda_tests")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if MARK.search(path.read_text())]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *map(str, sorted(files))]
    # Plugins of the machine's own know nothing of these tests.
    own = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        summary = told(figures, process.stdout)
    figures.check(f"tests of {len(files)} files", process.returncode == 0, summary)


def told(figures: Figures, lines: Iterable[str]) -> str:
    """Tell the result of each test in what pytest prints; return the last line that says a thing.

    Lines go on to the standard error, which is the log.
    """
    last = "no output"
    for line in lines:
        print(line, end="", file=sys.stderr, flush=True)
        last = line.strip() or last
        if (found := RESULT.match(line)) is not None:
            name, result = found["name"], found["result"]
            if result == "SKIPPED":
                figures.leave_out(name, "skipped")
            else:
                figures.check(name, result in ("PASSED", "XFAIL"), result.lower())
    return last


if __name__ == "__main__":
    main()
