"""`make gpu` without a GPU: every part runs, and tells its figures.

In two halves, which run at the same time: most of a half is processes that start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from benchmarks.gpu.run import PARTS
from tests.support.blocks import ROOT


@pytest.mark.parametrize("parts", [list(PARTS)[:3], list(PARTS)[3:]], ids=" ".join)
def test_every_part_runs_on_the_processor_and_keeps_its_figures(
    parts: list[str], tmp_path: Path
) -> None:
    script = ROOT / "benchmarks" / "gpu" / "run.sh"
    command = [str(script), "--dry", "--out", str(tmp_path), "--only", *parts]
    # Wheels that lie in build/ are for the Python of another machine.
    own = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "WHEELS": str(tmp_path / "none")}
    environment = {**os.environ, **own}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    name = "_".join(("gpu", *parts))
    rows = orjson.loads((tmp_path / f"{name}.json").read_bytes())["rows"]
    assert {row["part"] for row in rows} == set(parts)
    assert [row for row in rows if row["met"] == "no"] == []
    assert all(row["what"] in (tmp_path / f"{name}.md").read_text() for row in rows)
