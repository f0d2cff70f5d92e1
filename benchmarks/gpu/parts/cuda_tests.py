"""All tests with the mark `cuda`, which are skipped on machines without a GPU."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.gpu.figures import Figures
from benchmarks.reporting import ROOT

MARK = re.compile(r"mark\.cuda\b")


def main() -> None:
    """Run the tests, and tell how many passed, failed and were skipped, and which failed."""
    figures = Figures("cuda_tests")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if MARK.search(path.read_text())]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", "-rf"]
    done = subprocess.run(
        [*command, *map(str, sorted(files))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, file=sys.stderr)
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            figures.check(line.partition("::")[2] or line, False, "failed")
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
    figures.check(f"tests of {len(files)} files", done.returncode == 0, summary)


if __name__ == "__main__":
    main()
