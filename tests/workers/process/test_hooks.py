"""Hooks of a model in a child: they run there, on what was loaded, and end with the child."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.core.spec import Array
from batcher.errors import InvalidInput, ModelContractError, ModelError, WorkerLost
from batcher.models.hook_turns import EQUAL_CALLS
from batcher.models.protocol import Arrays, RemoteHook
from batcher.workers.process.hook_client import SharedHook
from tests.support.models import model_spec, tensor
from tests.workers.process.test_process_child import Bench, open_files

SPEC = model_spec(
    (tensor("word", "BYTES", ()), tensor("x", "FP32", (2,))),
    (tensor("y", "FP32", (2,)), tensor("said", "BYTES", ())),
)
MODEL = """
import os, signal, sys, threading
import numpy as np
from batcher.errors import InvalidInput

signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # the main thread of a process of its own

class Obedient:
    def load(self, device):
        self.loaded_in = os.getpid()
        self.meeting = threading.Barrier(2, timeout=60)

    def preprocess(self, inputs):
        word = inputs["word"][0]
        if word == b"raise":
            raise ValueError("as told")
        if word == b"refuse":
            raise InvalidInput("not this")
        if word == b"exit":
            sys.exit(3)
        if word == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == b"uneven":
            return {"x": np.zeros(2), "word": np.zeros(3)}
        if word == b"meet":
            self.meeting.wait()
        if word == b"fork" and (copy := os.fork()):
            os.waitpid(copy, 0)
        return {"word": inputs["word"], "x": inputs["x"] + self.loaded_in}

    def predict(self, inputs):
        return {"y": inputs["x"], "said": inputs["word"]}

    def postprocess(self, outputs):
        if outputs["said"][0] == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"y": -outputs["y"], "said": [bytes(one) + b"!" for one in outputs["said"]]}
"""


def inputs_of(*words: bytes) -> dict[str, Array]:
    return {"word": np.array(words, object), "x": np.ones((len(words), 2), np.float32)}


class HookBench(Bench):
    """A worker whose model has hooks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, MODEL, SPEC)

    def preprocess(self, *words: bytes) -> tuple[dict[str, Array], int]:
        hook = self.loaded.preprocess
        assert isinstance(hook, RemoteHook)
        return hook.run(inputs_of(*words), len(words))

    def postprocess(self, *words: bytes) -> dict[str, Array]:
        hook = self.loaded.postprocess
        assert isinstance(hook, RemoteHook)
        outputs = {"y": np.ones((len(words), 2), np.float32), "said": np.array(words, object)}
        return hook.run(outputs, len(words))[0]

    @property
    def pid(self) -> int:
        return int(self.preprocess(b"a")[0]["x"][0, 0]) - 1


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HookBench]:
    files, threads = open_files(), threading.active_count()
    bench = HookBench(tmp_path_factory.mktemp("model"))
    bench.start()
    yield bench
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert open_files() <= files
    assert threading.active_count() <= threads + 1, "the thread of the child may end a bit later"


def test_hooks_see_what_was_loaded_in_the_child(bench: HookBench) -> None:
    prepared, rows = bench.preprocess(b"a", b"b")
    assert rows == 2
    assert prepared["word"].tolist() == [b"a", b"b"]
    assert bench.pid != os.getpid()
    assert Path(f"/proc/{bench.pid}").exists()
    answer = bench.postprocess(b"a", b"b")
    assert answer["y"].tolist() == [[-1, -1], [-1, -1]]
    assert answer["said"].tolist() == [b"a!", b"b!"]


def test_hooks_of_two_requests_run_beside_each_other(bench: HookBench) -> None:
    for _ in range(EQUAL_CALLS):  # until the hooks are known to keep nothing
        bench.preprocess(b"a")
        bench.postprocess(b"a")
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(bench.preprocess(b"meet")))
    thread.start()
    assert bench.preprocess(b"meet")[1] == 1
    thread.join()
    assert others[0][1] == 1


@pytest.mark.parametrize(
    ("word", "kind", "text"),
    [
        (b"raise", ModelError, "the model failed: ValueError: as told"),
        (b"exit", ModelError, "the model failed: SystemExit: 3"),
        (b"refuse", InvalidInput, "not this"),
        (b"uneven", ModelContractError, "model 'm': preprocess: expected arrays of the same"),
    ],
)
def test_what_a_hook_raises_is_told_as_on_a_thread(
    bench: HookBench, word: bytes, kind: type[Exception], text: str
) -> None:
    pid = bench.pid
    with pytest.raises(kind) as caught:
        bench.preprocess(word)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(text)
    assert "obedient.py" in str(caught.value.__cause__) or kind is ModelContractError
    assert bench.pid == pid


def test_a_copy_that_a_hook_forks_answers_nothing(bench: HookBench) -> None:
    pid = bench.pid
    assert bench.preprocess(b"fork")[0]["x"][0, 0] == pid + 1
    assert bench.pid == pid


def test_a_child_that_ends_in_a_hook_is_replaced_and_hooks_go_to_the_next(
    bench: HookBench,
) -> None:
    for hook in (bench.preprocess, bench.postprocess):
        pid = bench.pid
        bench.loop.clock.advance(60)  # a child that was sound is replaced at once
        with pytest.raises(WorkerLost) as caught:
            hook(b"die")
        assert caught.value.begun
        assert caught.value.retry_after == 0
        assert bench.restarted() == "the child was killed by signal 9 (SIGKILL)"
        assert bench.pid != pid


def test_a_hook_for_which_there_is_no_child_was_not_begun(tmp_path: Path) -> None:
    bench = HookBench(tmp_path)
    bench.start()
    assert bench.pid
    assert bench.loop.wait_for(bench.worker.quit()) is None
    with pytest.raises(WorkerLost) as caught:
        bench.preprocess(b"a")
    assert (caught.value.begun, caught.value.retry_after) == (False, 1)
    with pytest.raises(WorkerLost) as caught:
        bench.postprocess(b"a")
    assert caught.value.retry_after == 0, "the model has run for this request"


class Numbered(RemoteHook):
    """A hook that gives its number back, or is lost."""

    def __init__(self, number: int, lost: WorkerLost | None = None) -> None:
        self.number = number
        self.lost = lost

    def run(self, values: Arrays, rows: int) -> tuple[dict[str, Array], int]:
        if self.lost is not None:
            raise self.lost
        return {}, self.number


def test_instances_take_requests_in_turn_and_one_that_is_lost_is_passed_over() -> None:
    hooks = [Numbered(0), Numbered(1), Numbered(2)]
    shared = SharedHook([*hooks])
    assert [shared.run({}, 1)[1] for _ in range(4)] == [0, 1, 2, 0]
    hooks[2].lost = WorkerLost("gone", begun=False)
    assert {shared.run({}, 1)[1] for _ in range(9)} == {0, 1}
    hooks[2].lost = WorkerLost("gone", begun=True)
    with pytest.raises(WorkerLost):
        [shared.run({}, 1) for _ in range(3)]
    for hook in hooks:
        hook.lost = WorkerLost("gone", begun=False)
    with pytest.raises(WorkerLost):
        shared.run({}, 1)
