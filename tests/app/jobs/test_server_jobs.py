"""The batch jobs of a server: what runs, what waits, and what is known after a restart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.app.jobs.server_jobs import make_jobs
from batcher.config.job_settings import JobSettings
from batcher.config.settings import ServerSettings
from batcher.core.references import Reference
from batcher.errors import (
    MODEL_FAILED,
    Draining,
    Forbidden,
    InvalidInput,
    QueueFull,
    Unavailable,
    UnknownJob,
)
from batcher.serving.jobs.entry import STATES, JobState, Wanted
from batcher.serving.jobs.server_job import BROKEN_S
from batcher.serving.model_version import ModelState
from batcher.serving.references import line_files
from batcher.serving.references.fetcher import rules_of
from batcher.serving.references.line_files import LineFiles
from batcher.serving.references.source import Fetch
from tests.support.serving import Serving

ROWS = 10
BULK_S = 0.3
"""Seconds of the clock at each turn; bulk begins a second after the last other request."""


class Night:
    """A server with a board of jobs, whose clock stands until `until` is called.

    Attributes:
        now: Unix seconds.
    """

    def __init__(self, folder: Path, **jobs: Any) -> None:
        self.folder = folder
        (folder / "in").mkdir(exist_ok=True)
        (folder / "out").mkdir(exist_ok=True)
        self.serving = Serving()
        self.now = 1e9
        self.settings = JobSettings(inputs=("in",), outputs=("out",), **jobs)
        settings = ServerSettings(jobs=self.settings)
        made = make_jobs(settings, folder, self.serving.server, lambda: self.now)
        assert made is not None
        self.jobs, self.board = made, made.board

    def ready(self) -> None:
        """Load the model and ask it once: from then on bulk waits until time passes."""
        self.serving.add_ready()
        self.serving.values(self.serving.infer(1))

    def write(self, name: str, rows: int = ROWS) -> Wanted:
        """Write an input of four numbers a row; return a job that reads it."""
        path = self.folder / "in" / f"{name}.jsonl"
        path.write_text("".join(f"[{row}, 0, 0, 0]\n" for row in range(rows)))
        return Wanted("m", "", str(path), str(self.folder / "out" / f"{name}.jsonl"))

    def wait(self, deferred: Deferred[Any]) -> Any:
        result = self.serving.loop.wait_for(deferred)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def create(self, wanted: Wanted) -> str:
        id: str = self.wait(self.board.create(wanted))["id"]
        return id

    def until(self, id: str, state: str) -> dict[str, Any]:
        """Let time pass until a job is in `state`; return its status."""

        def is_there() -> bool:
            self.serving.loop.clock.advance(BULK_S)
            return bool(self.board.status(id)["state"] == state)

        self.serving.loop.run_until(is_there)
        return self.board.status(id)

    def end(self) -> None:
        self.wait(self.jobs.stop())
        self.jobs.close()
        self.serving.end()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    night = Night(tmp_path)
    night.wait(night.board.start())
    yield night
    night.end()


def written(night: Night, name: str) -> list[Any]:
    text = (night.folder / "out" / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def doubled(rows: int = ROWS) -> list[Any]:
    return [{"y": [2.0 * row, 0.0, 0.0, 0.0]} for row in range(rows)]


def test_a_job_runs_in_the_bulk_class_and_says_how_far_it_is(night: Night) -> None:
    night.ready()
    wanted = night.write("a")
    id = night.create(wanted)
    assert night.board.status(id)["state"] == "running"
    night.now += 5
    status = night.until(id, "done")
    assert (status["rows"], status["failed_rows"], status["done"]) == (ROWS, 0, 1.0)
    assert (status["version"], status["rows_per_s"], status["ended"]) == ("1", 2.0, night.now)
    assert written(night, "a") == doubled()
    reasons = night.serving.server.metrics.model("m", "1").flushes
    assert reasons["bulk"] >= 3
    text = night.serving.server.metrics.render().decode()
    assert 'batcher_jobs{state="done"} 1.0' in text
    assert 'batcher_job_rows_total{outcome="answered"} 10.0' in text


def test_rows_are_counted_while_a_job_runs_and_once_where_it_goes_on(tmp_path: Path) -> None:
    rows, bad = 200, 3
    night = Night(tmp_path)
    night.ready()
    night.wait(night.board.start())
    wanted = night.write("a", rows)
    path = Path(wanted.input)
    path.write_text("no row\n" * bad + path.read_text())
    id = night.create(wanted)
    night.serving.loop.run_until((night.folder / "out/a.jsonl.part").exists)

    def counted() -> dict[str, float]:
        text = night.serving.server.metrics.render().decode()
        return {
            outcome: float(value)
            for outcome, value in re.findall(r'job_rows_total{outcome="(.*)"} (.*)', text)
        }

    def has_counted() -> bool:
        night.serving.loop.clock.advance(BULK_S)
        return counted().get("answered", 0) > 0

    night.serving.loop.run_until(has_counted)
    assert night.board.status(id)["state"] == "running"
    night.wait(night.board.stop())
    first = counted()
    night.end()
    assert first["failed"] == bad

    again = night = Night(tmp_path)
    again.serving.add_ready()
    again.wait(again.board.start())
    again.until(id, "done")
    assert counted() == {"answered": rows - first["answered"], "failed": 0}
    again.end()


def test_jobs_run_one_after_the_other_in_the_order_they_came(night: Night) -> None:
    night.ready()
    ids = [night.create(night.write(name)) for name in "abc"]
    assert [night.board.status(id)["state"] for id in ids] == ["running", "queued", "queued"]
    assert [status["id"] for status in night.board.list()] == ids[::-1]
    night.until(ids[2], "done")
    ended = [night.board.status(id)["state"] for id in ids]
    assert ended == ["done", "done", "done"]


def test_a_job_waits_for_a_model_that_still_loads(night: Night) -> None:
    ready = night.serving.add()
    id = night.create(night.write("a"))
    night.wait(ready)
    night.until(id, "done")
    assert written(night, "a") == doubled()


def test_a_job_that_is_cancelled_leaves_nothing(night: Night) -> None:
    night.ready()
    running, waiting = night.create(night.write("a")), night.create(night.write("b"))
    night.serving.loop.run_until(lambda: (night.folder / "out/a.jsonl.part").exists())
    assert night.wait(night.board.cancel(waiting))["state"] == "cancelled"
    assert night.wait(night.board.cancel(running))["state"] == "cancelled"
    assert list((night.folder / "out").iterdir()) == []
    assert night.wait(night.board.cancel(running))["state"] == "cancelled"


def test_a_job_that_is_cancelled_waits_for_no_file_that_its_lines_name(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def silent(_: LineFiles, rules: Any, reference: Reference, fetch: Fetch) -> None:
        asked.append(reference.address)
        while True:
            fetch.left()

    monkeypatch.setattr(LineFiles, "_read", silent)
    monkeypatch.setattr(line_files, "FILE_S", 1e9)
    night.serving.add_ready()
    rules = rules_of(ServerSettings(input_sources=("s3://photos/",)))
    night.serving.server.fetcher.rules = rules
    wanted = night.write("a")
    Path(wanted.input).write_text('{"ref": "s3://photos/a"}\n')
    id = night.create(wanted)
    night.serving.loop.run_until(lambda: bool(asked))
    assert night.wait(night.board.cancel(id))["state"] == "cancelled"
    assert list((night.folder / "out").iterdir()) == []


def test_a_server_that_is_started_again_goes_on_with_its_jobs(tmp_path: Path) -> None:
    night = Night(tmp_path)
    night.ready()
    night.wait(night.board.start())
    done = night.create(night.write("a"))
    night.until(done, "done")
    night.serving.values(night.serving.infer(1))  # bulk waits again
    id = night.create(night.write("b", 200))
    night.serving.loop.run_until(lambda: (tmp_path / "out/b.jsonl.part").exists())
    night.end()
    assert not (tmp_path / "out/b.jsonl").exists()
    with pytest.raises(Draining):
        night.board.create(night.write("c"))
    again = Night(tmp_path)
    again.serving.add_ready()
    for asked in (again.board.check_read, lambda: again.board.status(done)):
        with pytest.raises(Unavailable, match="still being read"):
            asked()
    again.wait(again.board.start())
    assert again.board.status(done)["state"] == "done"
    again.until(id, "done")
    assert written(again, "b") == doubled(200)
    again.end()


def test_a_job_that_cannot_run_says_why(night: Night) -> None:
    night.serving.add_ready()
    wanted = night.write("a")
    (night.folder / "in/a.jsonl").unlink()
    status = night.until(night.create(wanted), "failed")
    assert "the input: expected a file or a folder" in status["error"]
    unknown = night.write("b")._replace(model="none")
    status = night.until(night.create(unknown), "failed")
    assert "none" in status["error"]


def test_a_row_that_fails_does_not_tell_clients_the_model_s_own_words(night: Night) -> None:
    def failing(inputs: Any) -> Any:
        if (inputs["x"] == 3).any():
            raise ValueError("secret")
        return {"y": inputs["x"] * 2}

    night.serving.add_ready(predict=failing)
    status = night.until(night.create(night.write("a")), "done")
    assert (status["rows"], status["failed_rows"]) == (ROWS, 1)
    assert [row is None for row in written(night, "a")] == [row == 3 for row in range(ROWS)]
    (line,) = (night.folder / "out/a.jsonl.errors.jsonl").read_text().splitlines()
    assert json.loads(line) == {"line": 4, "code": "model_error", "error": MODEL_FAILED}


def test_an_output_that_is_there_is_overwritten_only_where_that_is_asked_for(night: Night) -> None:
    night.serving.add_ready()
    wanted = night.write("a")
    (night.folder / "out/a.jsonl").write_text("mine")
    status = night.until(night.create(wanted), "failed")
    assert "one that no job has written" in status["error"]
    night.until(night.create(wanted._replace(restart=True)), "done")
    assert written(night, "a") == doubled()


def test_files_elsewhere_are_forbidden(night: Night) -> None:
    wanted = night.write("a")
    for other in (wanted._replace(input="/etc/passwd"), wanted._replace(output="/tmp/x.jsonl")):
        with pytest.raises(Forbidden):
            night.create(other)


def test_two_jobs_that_have_not_ended_do_not_write_one_output(night: Night) -> None:
    night.ready()
    night.create(night.write("a"))
    errors = str(night.folder / "out/a.jsonl.errors.jsonl")
    for other in (night.write("a"), night.write("b")._replace(output=errors)):
        with pytest.raises(InvalidInput, match="another job writes"):
            night.create(other)


def test_a_job_is_forgotten_when_a_client_says_so_or_it_ended_long_ago(night: Night) -> None:
    night.serving.add_ready()
    first = night.create(night.write("a"))
    with pytest.raises(InvalidInput, match="cancel it first"):
        night.board.remove(first)
    night.until(first, "done")
    second = night.create(night.write("b"))
    night.until(second, "done")
    night.wait(night.board.remove(first))
    with pytest.raises(UnknownJob):
        night.board.status(first)
    night.now += 8 * 86_400
    third = night.create(night.write("c"))
    assert [status["id"] for status in night.board.list()] == [third]
    night.until(third, "done")
    assert [path.stem for path in (night.folder / "jobs").glob("*.json")] == [third]


def test_jobs_are_bounded_in_number(tmp_path: Path) -> None:
    night = Night(tmp_path, most=2)
    night.ready()
    night.wait(night.board.start())
    first = night.create(night.write("a"))
    night.until(first, "done")
    night.serving.values(night.serving.infer(1))  # so that bulk waits again
    night.create(night.write("b"))
    night.create(night.write("c"))
    with pytest.raises(QueueFull, match=r"2 jobs \(jobs\.most\) have not ended yet"):
        night.create(night.write("d"))
    assert first not in {status["id"] for status in night.board.list()}
    night.end()


def test_a_file_that_is_no_note_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/job-x.json").write_text("{}")
    night = Night(tmp_path)
    night.wait(night.board.start())
    assert night.board.list() == []
    assert (tmp_path / "jobs/job-x.json").exists()
    night.end()


def test_each_step_of_a_job_is_one_of_the_table() -> None:
    for old in JobState:
        for new in JobState:
            assert (new in STATES[old]) == (
                (old.value, new.value)
                in {
                    ("queued", "running"),
                    ("queued", "failed"),
                    ("queued", "cancelled"),
                    ("running", "queued"),
                    ("running", "done"),
                    ("running", "failed"),
                    ("running", "cancelled"),
                }
            )


def test_a_server_without_the_setting_has_no_jobs(tmp_path: Path) -> None:
    serving = Serving()
    assert make_jobs(ServerSettings(), tmp_path, serving.server) is None
    serving.end()


def test_a_job_that_is_cancelled_when_it_has_just_ended_keeps_its_output(night: Night) -> None:
    night.ready()
    id = night.create(night.write("a"))

    def is_there() -> bool:
        night.serving.loop.clock.advance(BULK_S)
        return (night.folder / "out/a.jsonl").exists()

    night.serving.loop.run_until(is_there)
    assert night.wait(night.board.cancel(id))["state"] == "done"
    assert written(night, "a") == doubled()


def test_what_a_job_has_begun_with_is_noted_for_the_next_start(night: Night) -> None:
    night.ready()
    id = night.create(night.write("a", 200)._replace(restart=True))

    def is_noted() -> bool:
        note = json.loads((night.folder / f"jobs/{id}.json").read_bytes())
        return bool(note["version"] == "1" and not note["wanted"]["restart"])

    night.serving.loop.run_until(is_noted)
    assert night.board.status(id)["state"] == "running"


def test_a_job_runs_though_its_notes_cannot_be_written(night: Night) -> None:
    night.ready()

    def full(*_: object) -> Any:
        raise QueueFull("the jobs pool is full")

    disk: Any = night.board._disk
    run, disk.run = disk.run, full
    first, second = night.create(night.write("a")), night.create(night.write("b"))
    night.until(second, "done")
    assert night.board.status(first)["state"] == "done"
    disk.run = run


def test_a_job_fails_whose_model_could_not_be_loaded(night: Night) -> None:
    def fails(progress: object) -> Any:
        raise ValueError("secret")

    loading = night.serving.add(load=fails)
    with pytest.raises(Exception, match="secret"):
        night.wait(loading)
    status = night.until(night.create(night.write("a")), "failed")
    assert status["error"] == "model m/1 is not ready: failed"


def test_a_job_fails_whose_model_has_no_worker_for_a_minute(night: Night) -> None:
    night.serving.add_ready()
    night.serving.server.find("m").become(ModelState.BROKEN, "it hangs: secret")
    id = night.create(night.write("a"))
    began = night.serving.loop.clock.seconds()
    status = night.until(id, "failed")
    assert status["error"] == "model m/1 is not ready: broken"
    assert night.serving.loop.clock.seconds() - began >= BROKEN_S


def test_a_place_is_looked_at_again_when_its_job_begins(night: Night) -> None:
    night.ready()
    night.create(night.write("a"))
    id = night.create(night.write("b"))
    secret = night.folder / "secret.jsonl"
    (night.folder / "in/b.jsonl").replace(secret)
    (night.folder / "in/b.jsonl").symlink_to(secret)
    status = night.until(id, "failed")
    assert "expected a file below one of the places" in status["error"]
