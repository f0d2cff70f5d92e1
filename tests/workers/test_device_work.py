"""What batches ask of a GPU: counted where they run, and handed to the loop by every worker."""

from __future__ import annotations

import os
from multiprocessing import Pipe
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import pytest

from batcher.batching.batch import Batch
from batcher.batching.worker import Outcome
from batcher.core.device_work import DeviceWork
from batcher.errors import ModelContractError
from batcher.models.checked import CheckedModel
from batcher.workers.overlapping import serve_overlapped
from batcher.workers.process.child import ParentConnection, run
from batcher.workers.process.messages import RunBatch
from batcher.workers.process.transit import BatchInTransit, Transit
from batcher.workers.ray.actor import ModelActor
from batcher.workers.ray.actor_child import _outcome
from batcher.workers.run_batch import run_batch
from batcher.workers.shared_memory.slots import Slot
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers, floats
from tests.support.model_folders import folders as folders
from tests.workers.test_memory import batch_of

MODULE = """
class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2
"""
ROW = 16
"""Bytes of a row of four floats."""

THREE_ROWS = DeviceWork(0, 3 * ROW, 3 * ROW)


@pytest.fixture
def checked(folders: Folders, gpu: FakeGpu) -> CheckedModel:
    """A module on a GPU."""
    return folders.load(folders.python(MODULE))


def test_bytes_there_and_back_are_counted_once_and_warm_up_is_nobody_s(
    checked: CheckedModel,
) -> None:
    assert checked.work_done() is None
    answers(checked, x=floats(3))
    assert checked.work_done() == THREE_ROWS
    assert checked.work_done() is None


def test_a_replay_is_counted_and_its_batch_travels_filled_up(
    folders: Folders, gpu: FakeGpu
) -> None:
    checked = folders.load(folders.python(MODULE), cuda_graphs=True)
    answers(checked, x=floats(3))
    answers(checked, x=floats(2))
    assert checked.work_done() == DeviceWork(2, (4 + 2) * ROW, (4 + 2) * ROW)


def test_on_the_cpu_nothing_is_counted(folders: Folders) -> None:
    checked = folders.load(folders.python(MODULE))
    assert checked.model.work is None
    answers(checked, x=floats(3))
    assert checked.work_done() is None


def test_the_instances_of_a_model_have_streams_of_their_own(folders: Folders, gpu: FakeGpu) -> None:
    definition = folders.python(MODULE)
    instances = [folders.load(definition, cuda_graphs=True) for _ in range(2)]
    used = set()
    for instance in (*instances, *instances):
        gpu.events.clear()
        answers(instance, x=floats(2))
        replay, wait = gpu.events
        used.add((replay.removeprefix("replay on "), wait.removeprefix("wait for ")))
    assert len(used) == 2
    assert all(replayed == awaited != "default" for replayed, awaited in used)


def test_a_thread_hands_the_work_of_a_batch_over_and_that_of_one_that_failed_with_the_next(
    folders: Folders, gpu: FakeGpu
) -> None:
    source = MODULE.replace("x * 2", "x[:1] if x[0, 0] == 9 else x * 2")
    checked = folders.load(folders.python(source))
    assert run_batch(checked, batch_of(1, 2, 3), 0.0, perf_counter).work == THREE_ROWS
    outcome = run_batch(checked, batch_of(9, 2, 3), 0.0, perf_counter)
    assert isinstance(outcome.error, ModelContractError)
    assert outcome.work is None
    outcome = run_batch(checked, batch_of(1), 0.0, perf_counter)
    assert outcome.work == DeviceWork(0, (3 + 1) * ROW, (1 + 1) * ROW)


def test_a_thread_whose_batches_overlap_hands_over_what_was_counted_until_each_has_ended(
    folders: Folders, gpu: FakeGpu
) -> None:
    checked = folders.load(folders.python(MODULE), overlap_copies=True, cuda_graphs=True)
    tasks: Any = SimpleQueue()
    for task in ((batch_of(1, 2, 3), 0.0), (batch_of(1), 0.0), None):
        tasks.put(task)
    outcomes: list[Outcome] = []
    serve_overlapped(checked, tasks, lambda: None, lambda _, outcome: outcomes.append(outcome))
    works = [outcome.work or DeviceWork() for outcome in outcomes]
    assert [sum(counts) for counts in zip(*works, strict=True)] == [2, 5 * ROW, 5 * ROW, 0]


def test_a_process_hands_it_over_with_its_answer(checked: CheckedModel) -> None:
    delivered: list[tuple[Batch, Outcome]] = []
    sent: list[RunBatch] = []

    def send(message: object) -> bool:
        assert isinstance(message, RunBatch)
        sent.append(message)
        return True

    fd, parent = os.memfd_create("test"), os.pidfd_open(os.getpid())
    slot = Slot(fd)
    transit = Transit(1, lambda: None, lambda *delivery: delivered.append(delivery))
    transit.begin([slot], send)
    transit.add(BatchInTransit(batch_of(1, 2, 3)))
    transit.feed()
    ours, its = Pipe()
    with ours, its:
        answer, _ = run(ParentConnection(its, parent), checked, sent[0], slot)
    assert transit.take_answer(answer) == ""
    os.close(fd)
    os.close(parent)
    assert delivered[0][1].error is None
    assert delivered[0][1].work == THREE_ROWS


def test_an_actor_of_ray_hands_it_over_with_its_answer(checked: CheckedModel) -> None:
    actor = object.__new__(ModelActor)
    actor._model = checked
    answer = actor.run({"x": floats(3)}, 3)
    assert _outcome(batch_of(1, 2, 3), answer).work == THREE_ROWS


@pytest.mark.cuda
def test_on_a_gpu_replays_and_bytes_are_counted(folders: Folders) -> None:
    checked = folders.load(folders.python(MODULE), device="cuda:0", cuda_graphs=True)
    answers(checked, x=floats(3))
    assert checked.work_done() == DeviceWork(1, 4 * ROW, 4 * ROW)
