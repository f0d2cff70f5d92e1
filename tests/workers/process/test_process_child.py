"""A real child: what crosses, how it ends, and that nothing is left of it."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from batcher.batching.batch import Batch
from batcher.batching.queue import Part
from batcher.batching.worker import Condition, Outcome
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array, ModelSpec
from batcher.errors import DeviceLost, InvalidInput, ModelError, WorkerLost
from batcher.models.model_errors import model_error
from batcher.models.protocol import LoadedModel
from batcher.workers.load_turns import LoadTurns
from batcher.workers.making import make_workers
from batcher.workers.process.child_thread import ChildThread
from batcher.workers.process.worker import ProcessWorker
from tests.support.crossing import PATIENCE, Loop
from tests.support.models import model_spec, tensor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child needs Linux")

MODEL = '''
    """A model that does what its rows say."""

    import ctypes
    import gc
    import os
    import signal
    import struct
    import sys
    from enum import Enum

    import numpy as np

    from batcher.errors import DeviceLost, InvalidInput, WorkerLost
    from batcher.workers.process.child import ParentConnection
    from batcher.workers.process.described_error import describe_error
    from batcher.workers.process.messages import BatchFailed


    class Code(str, Enum):
        BAD = "bad"


    class Rejected(InvalidInput):
        def __init__(self, message):
            super().__init__(message)
            self.reason = Code.BAD


    class Obedient:
        """Gives its inputs back; `text` may say otherwise."""

        loaded_in = 0

        def load(self, device):
            self.loaded_in = os.getpid()

        def preprocess(self, inputs):
            return {**inputs, "x": inputs["x"] + self.loaded_in}

        def predict(self, inputs):
            word = inputs["text"][0]
            if word == b"raise":
                raise ValueError("as told")
            if word == b"refuse":
                raise InvalidInput("not this")
            if word == b"one row":
                return {**self.said(inputs), "y": [ValueError("this row"), *inputs["x"][1:]]}
            if word == b"reject":
                return {**self.said(inputs), "y": [Rejected("row is bad"), *inputs["x"][1:]]}
            if word == b"pretend":
                raise WorkerLost("gone", begun=False)
            if word == b"lose device":
                raise DeviceLost("gone")
            if word == b"leave":
                os._exit(3)
            if word == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == b"die before the next" and connection()._connection.poll(60):
                os.kill(os.getpid(), signal.SIGKILL)
            if word.startswith(b"await "):
                open(word[6:], "rb").close()
            if word.startswith(b"hang and tell "):
                self.tell(word[14:])
                signal.pause()
            if word.startswith(b"stop and tell "):
                beginning = struct.pack("!i", 1000) + b"the beginning of a message"
                os.write(connection()._connection.fileno(), beginning)
                self.tell(word[14:])
                os.kill(os.getpid(), signal.SIGSTOP)
            if word == b"hang":
                ctypes.PyDLL(None).pause()  # and keeps the interpreter lock
            if word == b"fork":
                self.fork()
            if word == b"fork and exit" and self.fork() == 0:
                sys.exit(0)
            # when the next batch waits
            if word == b"answer twice" and connection()._connection.poll(60):
                error = describe_error(ValueError("of somebody else"))
                connection().send(BatchFailed(0, error))
            if word == b"babble" and connection()._connection.poll(60):
                connection()._connection.send_bytes(b"babble")
            inputs["x"][0, 0] += 1  # a model may write into what it is given
            return {**self.said(inputs), "y": inputs["x"][::-1]}

        def fork(self):
            copy = os.fork()
            if copy:
                os.waitpid(copy, 0)
            return copy

        def tell(self, path):
            with open(path, "wb") as told:
                told.write(b"!")

        def said(self, inputs):
            return {"said": inputs["text"], "pid": np.full((len(inputs["x"]), 1), os.getpid())}


    def connection():
        return next(found for found in gc.get_objects() if isinstance(found, ParentConnection))
'''
SPEC = model_spec(
    inputs=(tensor("x", shape=(-1,)), tensor("text", "BYTES", ())),
    outputs=(tensor("y", shape=(-1,)), tensor("said", "BYTES", ()), tensor("pid", "INT64", (1,))),
)


def batch_of(*words: bytes, width: int = 3) -> Batch:
    """Return a batch of one row for each of `words`; the row numbers fill `x`."""
    parts = []
    for number, word in enumerate(words):
        inputs = {"x": np.full((1, width), number, np.float32), "text": np.array([word], object)}
        parts.append(Part(inputs, 1, 16, (), 1, 0.0, 0.0))
    return Batch(parts)


class Bench:
    """A worker with a real child, the loop's side of it, and what happened there."""

    loaded: LoadedModel

    def __init__(
        self, folder: Path, source: str = MODEL, spec: ModelSpec = SPEC, pipeline_depth: int = 2
    ) -> None:
        (folder / "obedient.py").write_text(dedent(source))
        self.loop = Loop()
        self.outcomes: list[Outcome] = []
        self.changes: list[tuple[Condition, str]] = []
        definition = ModelDefinition(spec, "python", folder, folder, "obedient:Obedient")
        settings = ModelSettings(
            worker="process", device="cpu", max_batch_size=2, warmup=False
        ).model_copy(update={"pipeline_depth": pipeline_depth})
        call, clock = self.loop.call_from_thread, self.loop.clock
        (worker,) = make_workers(
            definition, settings, None, lambda text: None, call, clock, LoadTurns(1)
        )
        assert isinstance(worker, ProcessWorker)
        self.worker = worker

    def start(self) -> None:
        """Start, and wait until the model is loaded."""
        loaded = self.loop.wait_for(
            self.worker.start(self._deliver, lambda *change: self.changes.append(change))
        )
        assert isinstance(loaded, LoadedModel), loaded
        self.loaded = loaded

    def run(self, *words: bytes, width: int = 3) -> Outcome:
        """Run one batch and return its outcome."""
        self.worker.do(batch_of(*words, width=width))
        return self.outcome()

    def outcome(self) -> Outcome:
        """Wait for the next outcome, and forget it."""
        self.until(lambda: self.outcomes)
        return self.outcomes.pop(0)

    def until(self, happened: Callable[[], object]) -> None:
        """Make calls until it has happened."""
        while not happened():
            self.loop.step()

    def restarted(self) -> str:
        """Wait until the worker has been lost and is back, and return why it was lost."""
        self.until(lambda: (Condition.ALIVE, "") in self.changes)
        changes, self.changes = self.changes, []
        assert [condition for condition, _ in changes] == [Condition.RESTARTING, Condition.ALIVE]
        return changes[0][1]

    def _deliver(self, batch: Batch, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def pid_of(outcome: Outcome) -> int:
    """Return the number of the process that ran a batch."""
    return int(outcome.results[0]["pid"][0, 0])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    files, threads, others = open_files(), threading.enumerate(), children_of(os.getpid())
    bench = Bench(tmp_path_factory.mktemp("model"))
    bench.start()
    yield bench
    pid = pid_of(bench.run(b"where"))
    children = set(children_of(os.getpid())) - set(others)
    assert pid in children
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert not any(Path(f"/proc/{child}").exists() for child in children), "no zombies either"
    assert open_files() <= files, (
        "nothing is left; what earlier tests let go of meanwhile may be gone"
    )
    wait_for_others_than(threads)


def open_files() -> set[str]:
    """Return what this process has open, by number."""
    return {
        f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}"
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }


def wait_for_others_than(threads: list[threading.Thread]) -> None:
    """Wait until the other threads have ended: the last thing that one does is to say so.

    Threads that were there before may hang for ever: the tests of hangs leave some.
    """
    for thread in threading.enumerate():
        if thread not in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread.name


def children_of(pid: int) -> list[int]:
    """Return the children of a process, whichever of its threads started them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_batch_runs_in_another_process_and_its_rows_come_back(bench: Bench) -> None:
    outcome = bench.run(b"a", b"", width=2)
    assert outcome.error is None
    assert [result["y"].tolist() for result in outcome.results] == [[[1, 1]], [[1, 0]]]
    assert [result["said"].tolist() for result in outcome.results] == [[b"a"], [b""]]
    assert pid_of(outcome) != os.getpid()
    assert outcome.waited >= 0
    assert outcome.compute >= outcome.collating + outcome.splitting > 0


@pytest.mark.parametrize("width", [0, 1, 100_000, 10, 1_000_000])
def test_batches_of_any_size_cross(bench: Bench, width: int) -> None:
    outcome = bench.run(b"a", b"b", width=width or 1)
    assert outcome.error is None
    assert outcome.results[1]["y"].shape == (1, width or 1)


def test_results_stay_what_they_are_while_more_of_them_are_kept_than_there_are_slots(
    bench: Bench,
) -> None:
    kept: list[Array] = []
    for number in range(12):
        outcome = bench.run(*[b"a"] * (1 + number % 2), width=20_000 + number)
        kept.append(outcome.results[0]["y"])
    for number, array in enumerate(kept):
        assert array.shape == (1, 20_000 + number)
        assert array[0, 1] == number % 2


def test_batches_come_back_in_order_also_when_one_cannot_cross(bench: Bench) -> None:
    bench.worker.do(batch_of(b"a"))
    bench.worker.do(batch_of("text"))  # type: ignore[arg-type]  # as a hook might return
    bench.worker.do(batch_of(b"c"))
    first, second, third = bench.outcome(), bench.outcome(), bench.outcome()
    assert first.results[0]["said"] == b"a"
    assert str(second.error) == "'text': expected objects that are bytes; got str"
    assert third.results[0]["said"] == b"c"


def test_what_the_model_raises_arrives_as_if_it_had_been_raised_here(bench: Bench) -> None:
    outcome = bench.run(b"raise", b"b")
    assert outcome.results == []
    assert outcome.error is not None
    assert str(model_error(outcome.error)) == "the model failed: ValueError: as told"
    assert "in predict" in str(outcome.error.__cause__)
    assert isinstance(bench.run(b"refuse").error, InvalidInput)


def test_a_row_that_fails_alone_is_told_alone(bench: Bench) -> None:
    outcome = bench.run(b"one row", b"b")
    assert outcome.error is None
    assert {row: repr(error) for row, error in outcome.failed.items()} == {
        0: "ValueError('this row')"
    }
    assert outcome.results[1]["said"] == b"b"


def test_a_row_s_error_of_classes_that_only_the_model_knows_harms_no_other_row(
    bench: Bench,
) -> None:
    pid = pid_of(bench.run(b"a"))
    outcome = bench.run(b"reject", b"b")
    assert {row: repr(error) for row, error in outcome.failed.items()} == {
        0: "InvalidInput('row is bad')"
    }
    assert outcome.results[1]["said"] == b"b"
    assert pid_of(bench.run(b"a")) == pid


def test_a_model_cannot_say_that_it_has_not_begun(bench: Bench) -> None:
    assert type(bench.run(b"pretend").error) is ModelError


def test_signals_to_the_whole_group_do_not_end_the_child(bench: Bench) -> None:
    pid = pid_of(bench.run(b"a"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert pid_of(bench.run(b"a")) == pid


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (b"leave", "the child exited with status 3"),
        (b"die", "the child was killed by signal 9 (SIGKILL)"),
    ],
    ids=["exit", "signal"],
)
def test_a_child_that_ends_is_replaced_and_what_it_held_comes_back(
    bench: Bench, word: bytes, why: str
) -> None:
    before = pid_of(bench.run(b"a"))
    bench.worker.do(batch_of(word))
    bench.worker.do(batch_of(b"b"))
    bench.worker.do(batch_of(b"c"))
    errors = [bench.outcome().error for _ in range(3)]
    assert all(isinstance(error, WorkerLost) for error in errors)
    assert str(errors[0]) == f"the worker was lost: {why}"
    assert errors[0].begun  # type: ignore[union-attr]
    assert not errors[2].begun  # type: ignore[union-attr]  # two at a time are sent
    assert bench.restarted() == why
    assert pid_of(bench.run(b"a")) != before


def test_a_batch_that_waits_in_its_slot_when_the_child_dies_has_not_begun(bench: Bench) -> None:
    bench.worker.do(batch_of(b"die before the next"))
    bench.worker.do(batch_of(b"a"))
    errors = [bench.outcome().error for _ in range(2)]
    assert [error.begun for error in errors] == [True, False]  # type: ignore[union-attr]
    bench.restarted()
    assert bench.run(b"a").error is None


def test_what_the_child_answered_before_it_was_killed_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, pipeline_depth=4)
    bench.start()
    child = bench.worker._child
    assert isinstance(child, ChildThread)
    go, read = threading.Event(), child._transit._ring.read
    monkeypatch.setattr(
        child._transit._ring, "read", lambda slot, table: go.wait(PATIENCE) and read(slot, table)
    )
    fifos = [tmp_path / "sent", tmp_path / "begun"]
    for fifo in fifos:
        os.mkfifo(fifo)
    words = [b"await " + bytes(fifos[0]), b"b", b"c", b"hang and tell " + bytes(fifos[1])]
    for word in words:
        bench.worker.do(batch_of(word))
        child.let_begin(PATIENCE)
    opened = [os.open(fifo, os.O_RDWR) for fifo in fifos]
    assert select.select(opened[1:], [], [], PATIENCE)[0]
    bench.loop.clock.advance(60)  # while the thread is at the first answer
    go.set()
    outcomes = [bench.outcome() for _ in words]
    assert [outcome.results[0]["said"] for outcome in outcomes[:3]] == words[:3]
    assert outcomes[3].error.begun  # type: ignore[union-attr]
    assert bench.restarted() == "a batch has run for more than 60 s"
    assert bench.loop.wait_for(bench.worker.quit()) is None
    for fd in opened:
        os.close(fd)


def test_a_child_that_hangs_is_killed_and_replaced(bench: Bench) -> None:
    bench.worker.do(batch_of(b"hang"))
    bench.loop.clock.advance(60)
    assert isinstance(bench.outcome().error, WorkerLost)
    assert bench.restarted() == "a batch has run for more than 60 s"
    assert bench.run(b"a").error is None


@pytest.mark.parametrize("word", [b"fork", b"fork and exit"])
def test_a_copy_that_the_model_forks_answers_nothing(bench: Bench, word: bytes) -> None:
    pid = pid_of(bench.run(b"a"))
    assert pid_of(bench.run(word)) == pid
    assert pid_of(bench.run(b"a")) == pid


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (b"answer twice", r"it answered out of turn: batch 0, not \d+"),
        (b"babble", "it sent what cannot be read: UnpicklingError: .*"),
    ],
    ids=["out of turn", "unreadable"],
)
def test_a_child_whose_answers_cannot_be_trusted_is_replaced(
    bench: Bench, word: bytes, why: str
) -> None:
    bench.worker.do(batch_of(word))
    bench.worker.do(batch_of(b"a"))
    errors = [bench.outcome().error for _ in range(2)]
    assert all(
        isinstance(error, WorkerLost) and re.fullmatch(f"the worker was lost: {why}", str(error))
        for error in errors
    )
    # nobody knows what else it did
    assert [error.begun for error in errors] == [True, True]  # type: ignore[union-attr]
    bench.restarted()
    assert bench.run(b"a").error is None


def test_a_child_that_stops_in_the_middle_of_a_message_is_killed_and_replaced(
    bench: Bench, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "stops")
    with open(os.open(tmp_path / "stops", os.O_RDWR), "rb") as fifo:
        bench.worker.do(batch_of(b"stop and tell " + bytes(tmp_path / "stops")))
        assert select.select([fifo], [], [], PATIENCE)[0]
    bench.loop.clock.advance(60)
    assert isinstance(bench.outcome().error, WorkerLost)
    assert bench.restarted() == "a batch has run for more than 60 s"
    assert bench.run(b"a").error is None


def test_a_child_whose_device_is_lost_is_replaced(bench: Bench) -> None:
    assert isinstance(bench.run(b"lose device").error, DeviceLost)
    assert bench.restarted() == "its device is lost: gone"
    assert bench.run(b"a").error is None


def test_elsewhere_than_on_linux_the_model_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    bench = Bench(tmp_path)
    error = bench.loop.error_of(bench.worker.start(bench._deliver, lambda *change: None))
    words = "expected Linux for `worker: process`; this is darwin"
    assert str(error) == f"model 'm' version 1: {words}, while it loaded"
    assert bench.loop.wait_for(bench.worker.quit()) is None


def test_a_batch_is_one_call(bench: Bench) -> None:
    assert bench.loaded.one_call
