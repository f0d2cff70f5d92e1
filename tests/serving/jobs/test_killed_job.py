"""A job that is killed at any step, and run again, writes what an undisturbed one writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
KILLED = -9
NEVER = 1 << 30
MOST_RUNS = 60
OUTPUTS = ["out.jsonl", "out.csv", "out.npz", "out.parquet"]
ROWS = 40


def lines() -> list[str]:
    found = [f"[{row}, {row / 7}]" for row in range(ROWS)]
    found[6], found[17], found[30] = "[1]", "[-1, 2]", "no row"
    return found


def run(folder: Path, steps: int, name: str) -> int:
    command = [sys.executable, "-c", f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "]
    command[-1] += "runpy.run_module('tests.serving.jobs.killed_job', run_name='__main__')"
    ended = subprocess.run([*command, str(folder), str(steps), name], check=False)
    return ended.returncode


def folder_of(path: Path) -> Path:
    path.mkdir()
    (path / "in.jsonl").write_text("\n".join(lines()))
    return path


def what_it_wrote(folder: Path, name: str) -> dict[str, bytes]:
    """Return output and errors; no part may be left."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(found) == {"in.jsonl", name, f"{name}.errors.jsonl", f"{name}.journal"}
    return {key: found[key] for key in (name, f"{name}.errors.jsonl")}


def check_killed(tmp_path: Path, name: str, random: Random, kills: int) -> None:
    """Kill a job again and again, and compare what it wrote with an undisturbed job."""
    calm, wild = folder_of(tmp_path / "calm"), folder_of(tmp_path / "wild")
    assert run(calm, NEVER, name) == 0
    for _ in range(kills):
        status = run(wild, random.randint(1, 40), name)
        assert status in (0, KILLED)
    assert run(wild, NEVER, name) == 0
    assert what_it_wrote(wild, name) == what_it_wrote(calm, name)


def test_a_killed_job_loses_nothing_and_writes_nothing_twice(tmp_path: Path) -> None:
    check_killed(tmp_path, "out.jsonl", Random(1), 3)
    text = (tmp_path / "wild" / "out.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row is None for row in rows] == [row in (6, 17, 30) for row in range(ROWS)]
    errors = (tmp_path / "wild" / "out.jsonl.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in errors] == [7, 18, 31]


@pytest.mark.long
@pytest.mark.parametrize("name", OUTPUTS)
def test_twenty_kills_change_nothing(tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    check_killed(tmp_path, name, Random(name), 20)
    if name.endswith(".npz"):
        assert len(np.load(tmp_path / "wild" / name)["y"]) == ROWS - 3


@pytest.mark.long
def test_a_job_may_be_killed_at_any_step(tmp_path: Path) -> None:
    name = "out.npz"
    calm = folder_of(tmp_path / "calm")
    assert run(calm, NEVER, name) == 0
    expected = what_it_wrote(calm, name)
    for steps in range(MOST_RUNS, 0, -1):
        wild = folder_of(tmp_path / f"wild-{steps}")
        run(wild, steps, name)
        assert run(wild, NEVER, name) == 0
        assert what_it_wrote(wild, name) == expected, steps
