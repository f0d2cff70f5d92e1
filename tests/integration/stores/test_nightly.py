"""The job of examples/nightly against moto's S3: days that end, are killed, stopped or late."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.serving.repository.stores.opening import open_bucket
from tests.end_to_end.processes import ROOT, until
from tests.integration.stores.counterparts import Counterpart, moto

SCRIPT = ROOT / "examples" / "nightly" / "nightly.sh"
LIMIT_S = 120.0
BUCKET = "s3://models"
MODEL_YAML = """
format: python
class: model:Double
inputs: [{name: x, dtype: FP32, shape: [1]}]
outputs: [{name: y, dtype: FP32, shape: [1]}]
"""
MODEL = """
import os, time

class Double:
    def predict(self, inputs):
        time.sleep(float(os.environ.get("BATCH_S", "0")))
        if (inputs["x"] < 0).any():
            raise ValueError("expected numbers of at least 0")
        return {"y": inputs["x"] * 2}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counterpart]:
    pytest.importorskip("obstore", reason="the extra `stores` is not installed")
    if shutil.which("flock") is None:
        pytest.skip("flock is not here: it is util-linux's")
    with moto(tmp_path_factory.mktemp("moto")) as counterpart:
        yield counterpart


class Nights:
    """A model, a bucket of its own folder, and the script that runs each night."""

    def __init__(self, store: Counterpart, folder: Path) -> None:
        model = folder / "double" / "1"
        model.mkdir(parents=True)
        (model / "model.yaml").write_text(MODEL_YAML)
        (model / "model.py").write_text(MODEL)
        program = folder / "bin" / "batcher"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batcher.app.cli "$@"\n')
        program.chmod(0o755)
        self.work = folder / "work"
        self._folder = folder
        self._place = f"{BUCKET}/{folder.name}"
        self._environment = {
            **os.environ,
            **store.environment,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "WORK": str(self.work),
        }

    def put(self, day: str, rows: list[list[float]]) -> None:
        """Put the input of a day into the bucket."""
        file = self._folder / "rows.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        open_bucket(f"{self._place}/in").put(f"{day}.jsonl", file)

    def answers(self, name: str) -> list[object]:
        """Return the lines of a file of the output; [] if it is not there."""
        bucket = open_bucket(f"{self._place}/out")
        found = bucket.find(f"{name}.jsonl")
        text = b"" if found is None else bucket.fetch(found, 0, found.size)
        return [json.loads(line) for line in text.splitlines()]

    def start(self, day: str, **environment: str) -> subprocess.Popen[str]:
        """Start the script, with all that it starts in a session of its own."""
        return subprocess.Popen(
            [SCRIPT, self._folder / "double", f"{self._place}/in", f"{self._place}/out", day],
            env={**self._environment, **environment},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, day: str) -> tuple[int, str]:
        """Run the script to its end; return its status and what it wrote."""
        process = self.start(day)
        output, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, output

    def has_begun(self) -> bool:
        """Return whether some rows of a day are known to be written."""
        journals = [json.loads(path.read_text()) for path in self.work.rglob("*.journal")]
        return any(journal["rows"] for journal in journals)


@pytest.fixture
def nights(store: Counterpart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return Nights(store, tmp_path)


def test_a_day_is_answered_once_and_a_late_one_the_next_night(nights: Nights) -> None:
    nights.put("2026-11-02", [[3], [-4], [5]])

    assert nights.run("2026-11-01")[0] == 1  # nobody has put it there yet
    nights.put("2026-11-01", [[1], [2]])
    status, output = nights.run("2026-11-02")

    assert status == 3, output
    assert nights.answers("2026-11-01") == [{"y": [2.0]}, {"y": [4.0]}]
    assert nights.answers("2026-11-02") == [{"y": [6.0]}, None, {"y": [10.0]}]
    (error,) = nights.answers("2026-11-02.jsonl.errors")
    assert isinstance(error, dict)
    assert (error["line"], error["code"]) == (2, "model_error")
    assert list((nights.work / "unfinished").iterdir()) == []
    status, output = nights.run("2026-11-01")
    assert (status, "done already: 2 rows" in output) == (0, True), output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130)])
def test_a_night_that_was_ended_goes_on(nights: Nights, number: int, status: int) -> None:
    rows = 2_000
    nights.put("2026-11-01", [[row] for row in range(rows)])
    nights.put("2026-11-02", [[7]])
    process = nights.start("2026-11-01", BATCH_S="0.3")
    until(nights.has_begun, LIMIT_S)
    second = nights.run("2026-11-02")
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=LIMIT_S)

    assert second == (75, "nightly: an earlier start still runs\n")
    assert process.returncode == status, output
    assert nights.answers("2026-11-01") == []
    assert nights.run("2026-11-02")[0] == 0
    assert nights.answers("2026-11-01") == [{"y": [2.0 * row]} for row in range(rows)]
    assert nights.answers("2026-11-02") == [{"y": [14.0]}]
