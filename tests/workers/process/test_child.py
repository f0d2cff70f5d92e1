"""What the child does with one batch, in this process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from io import BytesIO
from multiprocessing import Pipe
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_settings import ModelSettings
from batcher.core.ragged import ragged
from batcher.core.spec import Array
from batcher.errors import DeviceLost, ModelContractError, OutOfMemory
from batcher.models.checked import CheckedModel
from batcher.models.protocol import PartialOutputs
from batcher.models.row_lists import array_of_rows
from batcher.workers.process import child
from batcher.workers.process.child import ParentConnection, run, serve, status_of
from batcher.workers.process.child_process import how_ended
from batcher.workers.process.lifeline import end_with_parent
from batcher.workers.process.messages import (
    BatchDone,
    BatchFailed,
    Load,
    LoadDone,
    LoadPaused,
    LoadProgress,
    Prepare,
    RunBatch,
    send,
)
from batcher.workers.shared_memory.packing import Packer, unpack
from batcher.workers.shared_memory.slots import Slot
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders
from tests.support.models import Predict, RecordingModel, double, model_spec, rows, tensor


class StagingModel(RecordingModel):
    """A model whose device reads from memory of its own faster; it remembers what it gave."""

    own_buffers = True

    def __init__(self, predict: Predict = double) -> None:
        super().__init__(predict=predict)
        self.given: list[Array] = []

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        self.given.append(super().allocate(name, shape, dtype))
        return self.given[-1]


class Bench:
    """A slot with two rows of input in it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("test")
        self.parent = os.pidfd_open(os.getpid())
        self.slot = Slot(self.fd)
        self.fill(rows(1, 2))

    def fill(self, x: Array) -> None:
        """Put two rows of input into the slot, over what was there."""
        packer = Packer(self.slot)
        self.task = RunBatch(7, 0, packer.table({"x": x}), packer.end, 2)

    def run(self, model: StagingModel) -> BatchDone | BatchFailed:
        """Run the two rows."""
        return self.run_checked(CheckedModel(model))

    def run_checked(self, checked: CheckedModel) -> BatchDone | BatchFailed:
        """Run the two rows on a model that is loaded."""
        checked.copies_outputs = False
        ours, its = Pipe()
        with ours, its:
            answer, _ = run(ParentConnection(its, self.parent), checked, self.task, self.slot)
        assert answer.number == self.task.number
        return answer

    def outputs(self, answer: BatchDone | BatchFailed) -> list[list[float]]:
        """Return the output, read out of the slot."""
        assert isinstance(answer, BatchDone), answer
        self.slot.reserve(answer.end)
        outputs: list[list[float]] = unpack(answer.table, self.slot.memory)["y"].tolist()
        return outputs


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    os.close(bench.parent)
    os.close(bench.fd)


def test_a_model_with_memory_of_its_own_is_given_that(bench: Bench) -> None:
    seen: list[Array] = []
    model = StagingModel(lambda inputs: (seen.append(inputs["x"]), double(inputs))[1])
    assert bench.outputs(bench.run(model)) == [[2] * 4, [4] * 4]
    assert seen[0] is model.given[0]


def test_any_other_is_given_the_slot_itself_and_may_give_it_back(bench: Bench) -> None:
    seen: list[Array] = []
    model = StagingModel(lambda inputs: (seen.append(inputs["x"]), {"y": inputs["x"]})[1])
    model.own_buffers = False
    answer = bench.run(model)
    assert np.may_share_memory(seen[0], bench.slot.memory)
    bench.slot.memory[: bench.task.end] = 0  # what it gave back lies elsewhere
    assert bench.outputs(answer) == [[1] * 4, [2] * 4]


KEEPS = {
    "a class": """
class Model:
    last = None

    def predict(self, inputs):
        x = inputs["x"]
        if self.last is None or not np.array_equal(self.last[0], x):
            self.last = x, x * 2
        return self.last[1]
""",
    "a module": """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.x = self.y = torch.zeros(0)

    def forward(self, x):
        if self.x.shape != x.shape or not torch.equal(self.x, x):
            self.x, self.y = x, x * 2
        return self.y
""",
}
"""Models that answer the same inputs from memory."""


@pytest.mark.parametrize("kind", ["a class", "a module", "TorchScript"])
def test_what_a_model_keeps_of_its_inputs_stays_as_it_was(
    bench: Bench, folders: Folders, kind: str
) -> None:
    if kind == "TorchScript":
        folders.python(KEEPS["a module"])
        module = ModuleType("code")
        path = folders.base / "m/1/code.py"
        exec(compile(path.read_text(), path, "exec"), vars(module))
        archive = BytesIO()
        torch.jit.save(torch.jit.script(module.Model()), archive)
        files = {"net.pt": archive.getvalue()}
        definition = folders.define("format: torchscript\nfile: net.pt", files)
    else:
        definition = folders.python(KEEPS[kind])
    checked = folders.load(definition)
    assert bench.outputs(bench.run_checked(checked)) == [[2] * 4, [4] * 4]
    bench.fill(rows(5, 6))
    assert bench.outputs(bench.run_checked(checked)) == [[10] * 4, [12] * 4]


def test_outputs_that_break_the_contract_fail_the_batch(bench: Bench) -> None:
    answer = bench.run(StagingModel(lambda inputs: {"y": inputs["x"][:1]}))
    assert isinstance(answer, BatchFailed)
    assert answer.error.known is ModelContractError


def test_if_every_row_of_texts_fails_each_is_told_why(bench: Bench) -> None:
    spec = model_spec(outputs=(tensor("y", "BYTES", ()),))

    class Texts(StagingModel):
        def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            outputs: dict[str, Any] = {"y": [ValueError("first"), ValueError("second")]}
            array, failed = array_of_rows(outputs["y"], spec.outputs[0], "y")
            return PartialOutputs({"y": array}, failed)

    model = Texts()
    model.spec = spec
    answer = bench.run(model)
    assert isinstance(answer, BatchDone), answer
    assert {row: error.message for row, error in answer.failed.items()} == {0: "first", 1: "second"}


@pytest.mark.parametrize("wrong", [None, 5])
def test_a_row_that_is_no_text_fails_alone(bench: Bench, wrong: object) -> None:
    model = StagingModel(lambda inputs: {"y": np.array([b"a", wrong], object)})
    model.spec = model_spec(outputs=(tensor("y", "BYTES", ()),))
    answer = bench.run(model)
    assert isinstance(answer, BatchDone), answer
    assert answer.failed.keys() == {1}
    assert f"expected BYTES; got {type(wrong).__name__} {wrong}" in answer.failed[1].message


def test_for_a_hook_a_value_that_is_no_text_breaks_the_contract(bench: Bench) -> None:
    model = StagingModel(lambda inputs: {"y": np.array([b"a", None], object)})
    model.postprocess = dict
    answer = bench.run(model)
    assert isinstance(answer, BatchFailed)
    assert answer.error.known is ModelContractError
    assert "expected texts or numbers; got NoneType None" in answer.error.message


def test_ragged_rows_cross_with_their_shapes(bench: Bench) -> None:
    rows = [np.ones((2, 3), "<f4"), np.empty((0, 3), "<f4")]
    model = StagingModel(lambda inputs: {"y": ragged(rows)})
    model.spec = model_spec(outputs=(tensor("y", "FP32", (-1, 3)),))
    answer = bench.run(model)
    assert isinstance(answer, BatchDone), answer
    found = unpack(answer.table, bench.slot.memory)["y"]
    assert [row.tolist() for row in found] == [row.tolist() for row in rows]
    assert [row.shape for row in found] == [(2, 3), (0, 3)]


def test_after_a_lost_device_no_batch_is_begun(bench: Bench) -> None:
    def predict(inputs: object) -> dict[str, Array]:
        raise DeviceLost("gone")

    model = StagingModel(predict)
    ours, its = Pipe()
    with ours, its:
        for message in (bench.task, bench.task, None):
            send(ours, message)
        serve(ParentConnection(its, bench.parent), CheckedModel(model), [bench.slot])
        assert ours.recv().error.known is DeviceLost
        assert not ours.poll()
    assert len(model.batches) == 1


def test_a_load_that_waits_for_another_process_tells_the_parent(
    bench: Bench, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "ignore_group_signals", lambda: None)
    definition = folders.python("""
from batcher.models.load_pause import others_may_load

class Model:
    def load(self, device):
        with others_may_load():
            pass

    def predict(self, inputs):
        return {"y": inputs["x"]}
""")
    ours, its = Pipe()
    with ours, its:
        for message in (Prepare(definition, ModelSettings(device="cpu", warmup=False)), Load()):
            send(ours, message)
        assert child._load(ParentConnection(its, bench.parent)) is not None
        heard = [type(ours.recv()) for _ in range(3)]
    assert heard == [LoadProgress, LoadPaused, LoadDone]


def test_memory_that_runs_out_is_told_as_that(bench: Bench) -> None:
    def predict(inputs: object) -> dict[str, Array]:
        raise MemoryError

    answer = bench.run(StagingModel(predict))
    assert isinstance(answer, BatchFailed)
    assert answer.error.known is OutOfMemory


def test_a_child_whose_parent_has_ended_before_it_looks_ends_without_a_word() -> None:
    parent = subprocess.Popen(["true"])
    parent.wait()
    with pytest.raises(SystemExit):
        end_with_parent(parent.pid, -1)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(3), 3),
        (SystemExit("words"), 1),
        (KeyboardInterrupt(), 1),
    ],
)
def test_a_process_exits_with_the_status_of_what_ended_it(
    error: BaseException | None, status: int
) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (0, "the child exited with status 0"),
        (3, "the child exited with status 3"),
        (-9, "the child was killed by signal 9 (SIGKILL)"),
        (-11, "the child was killed by signal 11 (SIGSEGV)"),
        (-40, "the child was killed by signal 40 (of real time)"),
    ],
)
def test_how_a_child_ended_is_said_in_words(status: int, how: str) -> None:
    assert how_ended(status) == how
