"""`batcher run`: a file through a model without a server, as a person or a timer runs it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import Process, run, started, until, write_model

SOURCE = """
import time

class Model:
    def predict(self, inputs):
        time.sleep(0.005)
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}
"""
BATCH = 4
ROWS = 800
BAD = (5, 11)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a model, its configuration, and an input with two bad rows."""
    write_model(tmp_path / "models", "double", SOURCE)
    config = f"model_repository: models\ndefaults: {{max_batch_size: {BATCH}}}\n"
    (tmp_path / "config.yaml").write_text(config)
    lines = [f"[{row}, 1, 2, 3]" for row in range(ROWS)]
    lines[BAD[0]], lines[BAD[1]] = "[1]", "[-1, 1, 2, 3]"
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    return tmp_path


def words(folder: Path, output: str, *more: str) -> list[str]:
    paths = [str(folder / "in.jsonl"), str(folder / output), "-c", str(folder / "config.yaml")]
    return ["run", "double", *paths, *more]


def stopped(folder: Path, output: str, number: int) -> Process:
    """Begin a job, and send a signal once the journal has rows."""
    journal = folder / f"{output}.journal"

    def has_rows() -> bool:
        return journal.exists() and 0 < json.loads(journal.read_text())["rows"] < ROWS

    command = ("-m", "batcher.app.cli", *words(folder, output))
    with started(folder, command=command, ready=False) as process:
        until(has_rows, 60)
        process.signal(number)
        process.wait(60)
    return process


def check(text: str) -> None:
    rows: list[Any] = [json.loads(line) for line in text.splitlines()]
    expected = [{"y": [2.0 * row, 2.0, 4.0, 6.0]} for row in range(ROWS)]
    assert rows == [None if row in BAD else each for row, each in enumerate(expected)]


def test_a_job_that_was_killed_or_stopped_goes_on_and_gives_the_same_bytes(folder: Path) -> None:
    calm = run(*words(folder, "calm.jsonl"))
    assert calm.returncode == 3, calm.stderr
    assert "completed with errors: 2 of 800 rows" in calm.stdout
    for output, number in (("killed.jsonl", signal.SIGKILL), ("ended.jsonl", signal.SIGTERM)):
        stopped(folder, output, number)
        assert not (folder / output).exists()
        again = run(*words(folder, output))
        assert again.returncode == 3, again.stderr
        assert "going on behind row" in again.stderr
        text = (folder / output).read_text()
        check(text)
        assert text == (folder / "calm.jsonl").read_text()
        errors = (folder / f"{output}.errors.jsonl").read_text()
        assert errors == (folder / "calm.jsonl.errors.jsonl").read_text()
        found = [json.loads(line) for line in errors.splitlines()]
        assert [line["line"] for line in found] == [row + 1 for row in BAD]
        assert "ValueError: negative" in found[1]["error"]


def test_a_job_that_is_done_is_not_run_again_unless_that_is_asked_for(folder: Path) -> None:
    (folder / "in.jsonl").write_text("[1, 1, 1, 1]\n")
    assert run(*words(folder, "out.csv")).returncode == 0
    assert (folder / "out.csv").read_text() == "y[0],y[1],y[2],y[3]\n2.0,2.0,2.0,2.0\n"
    again = run(*words(folder, "out.csv"))
    assert (again.returncode, again.stdout) == (0, "done already: 1 rows in out.csv\n")
    (folder / "in.jsonl").write_text("[2, 1, 1, 1]\n[3, 1, 1, 1]\n")
    changed = run(*words(folder, "out.csv"))
    assert changed.returncode == 1
    assert "the input changed since this job began: --restart begins anew" in changed.stderr
    assert run(*words(folder, "out.csv", "--restart")).returncode == 0
    assert (folder / "out.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.txt", "the output: expected JSON lines (.jsonl), CSV (.csv), numpy arrays (.npz) or"),
        ("there.jsonl", "there.jsonl: expected no such file; got one that no job has written"),
    ],
)
def test_what_cannot_be_written_is_said_before_a_model_is_loaded(
    folder: Path, output: str, message: str
) -> None:
    (folder / "there.jsonl").write_text("mine")
    refused = run(*words(folder, output))
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "loading" not in refused.stderr


def test_a_job_of_a_server_runs_in_its_bulk_class(folder: Path) -> None:
    (folder / "in.jsonl").write_text("[1, 2, 3, 4]\n[1]\n[-1, 2, 3, 4]\n[5, 6, 7, 8]\n")
    command = ("-m", "batcher.app.cli", "serve", "-c", str(folder / "config.yaml"))
    settings = ("--port", "0", "--set", "expose_model_errors=true")
    with started(folder, *settings, command=command) as server:
        asked = ["run", "double", str(folder / "in.jsonl"), str(folder / "out.jsonl")]
        done = run(*asked, "--url", server.address)
        assert done.returncode == 3, done.stderr
        assert f"double/1 at {server.address}" in done.stderr
        page = server.get("/metrics")
        assert 'reason="bulk"' in page
        unknown = run("run", "none", *asked[2:], "--url", server.address)
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert rows == [{"y": [2.0, 4.0, 6.0, 8.0]}, None, None, {"y": [10.0, 12.0, 14.0, 16.0]}]
    errors = (folder / "out.jsonl.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["code"] for line in errors] == ["invalid_input", "model_error"]
    assert unknown.returncode == 1
    assert "expected the description of a model; got 404" in unknown.stderr
    away = run("run", "double", *asked[2:], "--url", server.address)
    assert away.returncode == 1
    assert "is the server running there?" in away.stderr
