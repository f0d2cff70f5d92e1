"""One job, step by step: what is under way, in which order it is written, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.codecs.row_files.opening import error_line_of, reader_of, writer_of
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array
from batcher.errors import ConfigError, DeviceLost
from batcher.serving.jobs import job as jobs
from batcher.serving.jobs.answering import Answering
from batcher.serving.jobs.job import Job, Shape
from batcher.serving.jobs.journal import DONE, RUNNING, Record, check_same
from batcher.serving.jobs.output_files import OutputFiles
from batcher.serving.jobs.writing import JobOutput, Progress
from batcher.workers.pool import CpuPool
from tests.support.models import model_spec, tensor

SPEC = model_spec((tensor("x", "FP32", (1,)),), (tensor("y", "FP32", (1,)),))
LINES = error_line_of("out.jsonl", "line")


class StepPool:
    """Runs a function when the test says so.

    Attributes:
        waiting: functions that wait.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def run(self, nbytes: int, deadline: float, function: Callable[[], Any]) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        self.waiting.append((deferred, function))
        return deferred

    def step(self) -> None:
        """Run the oldest function."""
        deferred, function = self.waiting.pop(0)
        maybeDeferred(function).chainDeferred(deferred)


class Run:
    """A job whose every step the test takes.

    Attributes:
        requests: requests without an answer so far, by their first value.
    """

    def __init__(
        self, folder: Path, rows: int, batch: int = 2, portions: int = 3, answer_width: int = 1
    ) -> None:
        self.answer_width = answer_width
        source = folder / "in.jsonl"
        if not source.exists():
            source.write_text("".join(f"[{row}]\n" for row in range(rows)))
        self.clock = Clock()
        self.reading, self.writing = StepPool(), StepPool()
        self.requests: dict[int, tuple[Deferred[InferenceResponse], Array]] = {}
        self.ended: list[Progress | Failure] = []
        self.files = OutputFiles(folder / "out.jsonl", [""])
        self.reader: Any = reader_of("in.jsonl", source.open("rb"), SPEC, "", 0)
        record = self.files.journal.read()
        record = record or Record({}, RUNNING, self.reader.begin, 0, 0, 0.0, [0], 0, {})
        self.output = JobOutput(self.files, writer_of("out.jsonl", SPEC, {}), record, LINES)
        self.output.open()
        pools = cast("tuple[CpuPool, CpuPool]", (self.reading, self.writing))
        answering = Answering(self.infer, self.clock)
        shape = Shape(batch, portions)
        self.job = Job(self.reader, self.output, answering, shape, pools, self.clock)
        self.job.run().addBoth(self.ended.append)

    def infer(self, inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
        answered: Deferred[InferenceResponse] = Deferred()
        self.requests[int(inputs["x"][0, 0])] = (answered, inputs["x"])
        return answered

    def answer(self, first: int) -> None:
        """Answer the request whose first value is `first`."""
        answered, x = self.requests.pop(first)
        y = np.repeat(x * 2, self.answer_width, axis=1)
        answered.callback(InferenceResponse("m", "1", {"y": y}, 0, 0, len(x)))

    def read_all(self) -> None:
        """Read as long as the window has room."""
        while self.reading.waiting:
            self.reading.step()

    def finish(self) -> None:
        """Read and write until nothing waits."""
        while self.reading.waiting or self.writing.waiting:
            self.read_all()
            while self.writing.waiting:
                self.writing.step()


def written(folder: Path, name: str = "out.jsonl") -> list[float]:
    lines = (folder / name).read_text().splitlines()
    return [json.loads(line)["y"][0] for line in lines]


def test_the_window_is_bounded_and_moves_on_with_each_answer(tmp_path: Path) -> None:
    run = Run(tmp_path, 20)
    run.read_all()
    assert sorted(run.requests) == [0, 2, 4]
    run.answer(2)
    run.read_all()
    assert sorted(run.requests) == [0, 4, 6]
    assert run.writing.waiting == []
    run.answer(0)
    run.writing.step()
    run.read_all()
    assert sorted(run.requests) == [4, 6, 8]


def test_the_model_goes_on_while_the_disk_stands_still_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_UNWRITTEN", 5)
    run = Run(tmp_path, 40)
    run.read_all()
    for first in (0, 2, 4, 6):
        run.answer(first)
        run.read_all()
    assert sorted(run.requests) == [8]
    assert len(run.writing.waiting) == 1
    run.writing.step()
    run.read_all()
    assert sorted(run.requests) == [8, 10]


def test_answers_that_wait_for_the_disk_bound_the_window_and_inputs_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_WINDOW_BYTES", 4 * 8)
    run = Run(tmp_path, 40, answer_width=8)
    run.read_all()
    assert sorted(run.requests) == [0, 2, 4]
    run.answer(2)
    run.read_all()
    assert sorted(run.requests) == [0, 4]
    run.answer(0)
    run.writing.step()
    run.read_all()
    assert sorted(run.requests) == [4, 6, 8]


def test_small_portions_are_read_several_at_once_but_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, 40, portions=12)
    run.reading.step()
    assert sorted(run.requests) == [0, 2, 4]
    monkeypatch.setattr(jobs, "READ_BYTES", 9)
    run.reading.step()
    assert sorted(run.requests) == [0, 2, 4, 6, 8]
    read = run.reader.read
    run.reader.read = lambda *asked: (run.clock.advance(1), read(*asked))[1]
    run.reading.step()
    assert sorted(run.requests) == [0, 2, 4, 6, 8, 10]


def test_portions_that_are_answered_quickly_are_written_together(tmp_path: Path) -> None:
    run = Run(tmp_path, 8, portions=12)
    run.read_all()
    run.answer(0)
    run.answer(2)
    assert run.writing.waiting == []
    run.clock.advance(jobs.WRITE_S)
    run.answer(4)
    run.writing.step()
    assert run.job.progress.rows == 6
    run.answer(6)
    run.finish()
    assert run.ended == [Progress(8, 0, 1.0, DONE)]


def test_a_portion_of_bad_rows_alone_is_not_the_last_of_those_read_with_it(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("no row\n" * 8 + "[8]\n[9]\n")
    run = Run(tmp_path, 10, portions=12)
    run.reading.step()
    assert sorted(run.requests) == [8]
    run.answer(8)
    run.finish()
    assert run.ended == [Progress(10, 8, 1.0, DONE)]


def test_large_rows_bound_the_window_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_WINDOW_BYTES", 1)
    run = Run(tmp_path, 20)
    run.read_all()
    assert sorted(run.requests) == [0, 2]


def test_answers_are_written_in_the_order_of_the_input(tmp_path: Path) -> None:
    run = Run(tmp_path, 5)
    run.read_all()
    for first in (4, 2, 0):
        run.answer(first)
    run.finish()
    assert run.ended == [Progress(5, 0, 1.0, DONE)]
    assert written(tmp_path) == [0, 2, 4, 6, 8]
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


def test_the_journal_is_written_once_a_second(tmp_path: Path) -> None:
    run = Run(tmp_path, 20)
    run.read_all()

    def rows_in_journal() -> int:
        record = run.files.journal.read()
        assert record is not None
        return record.rows

    run.answer(0)
    run.writing.step()
    assert (run.job.progress.rows, rows_in_journal()) == (2, 0)
    run.clock.advance(1)
    run.answer(2)
    run.writing.step()
    assert (run.job.progress.rows, rows_in_journal()) == (4, 4)


def test_a_job_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path, 6)
    run.read_all()
    run.answer(0)
    run.answer(4)
    run.writing.step()
    run.job.stop()
    run.finish()
    assert run.ended == [Progress(2, 0, 2 / 6, RUNNING)]
    run.output.close()
    run = Run(tmp_path, 6)
    run.read_all()
    assert sorted(run.requests) == [2, 4]
    run.answer(2)
    run.answer(4)
    run.finish()
    assert run.ended == [Progress(6, 0, 1.0, DONE)]
    assert written(tmp_path) == [0, 2, 4, 6, 8, 10]


def test_a_job_that_cannot_go_on_ends_when_its_threads_are_idle(tmp_path: Path) -> None:
    run = Run(tmp_path, 8, portions=2)
    run.read_all()
    run.answer(0)
    run.writing.step()
    assert run.reading.waiting
    run.requests[2][0].errback(DeviceLost("gone"))
    assert run.ended == []
    run.reading.step()
    (failure,) = run.ended
    assert isinstance(failure, Failure)
    assert failure.check(DeviceLost)
    run.output.close()


def test_a_disk_that_is_full_ends_the_job(tmp_path: Path) -> None:
    run = Run(tmp_path, 2)
    run.read_all()

    def full(parts: object, errors: object) -> None:
        raise OSError("no space left")

    run.files.append = full  # type: ignore[method-assign]  # the disk's part
    run.answer(0)
    run.writing.step()
    (failure,) = run.ended
    assert isinstance(failure, Failure)
    assert failure.check(OSError)
    run.output.close()


def test_an_empty_input_gives_an_empty_output(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    run.finish()
    assert run.ended == [Progress(0, 0, 1.0, DONE)]
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_two_jobs_do_not_write_the_same_output(tmp_path: Path) -> None:
    run = Run(tmp_path, 2)
    with pytest.raises(ConfigError, match="another job writes this output now"):
        OutputFiles(tmp_path / "out.jsonl", [""]).open([0], 0)
    run.output.close()


def test_an_output_that_has_lost_bytes_is_not_gone_on_with(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path / "out.jsonl", [""])
    with pytest.raises(ConfigError, match=r"expected at least 5 bytes: --restart"):
        files.open([5], 0)
    files.close()


def test_a_file_that_no_job_has_written_is_not_overwritten(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path / "out.jsonl", [""])
    files.output.write_text("mine")
    with pytest.raises(ConfigError, match="one that no job has written"):
        files.check_free()
    files.remove()
    files.check_free()


def test_a_journal_says_what_has_changed_since() -> None:
    record = Record({"input": 1, "model": [2]}, RUNNING, [0], 0, 0, 0.0, [0], 0, {})
    check_same(record, {"input": 1, "model": (2,)})
    with pytest.raises(ConfigError, match=r"^the input and the model changed since .* --restart"):
        check_same(record, {"input": 2, "model": (3,)})


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path / "out.jsonl", [""])
    files.journal.path.write_text("{")
    with pytest.raises(ConfigError, match="expected the journal of a job: --restart"):
        files.check_free()


def test_a_job_that_has_ended_writes_nothing_more(tmp_path: Path) -> None:
    run = Run(tmp_path, 2)
    run.read_all()
    run.answer(0)
    run.finish()
    assert len(run.ended) == 1
    run.job.stop()
    assert run.writing.waiting == []


@pytest.mark.parametrize("name", ["out.jsonl.part", "out.jsonl.errors.jsonl.part"])
def test_a_job_writes_through_no_link(tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / name).symlink_to(other)
    files = OutputFiles(tmp_path / "out.jsonl", [""])
    with pytest.raises((OSError, ConfigError)):
        files.open([0], 0)
    files.close()
    assert other.read_text() == "mine"
