"""`overlap_copies`: the order of copies and kernels, what waits for what, whose answers come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_settings import ModelSettings
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel, UnderWay
from batcher.models.unused_settings import unused_notes
from tests.models.pytorch.test_graphs import network
from tests.support.fake_gpu import FakeGpu, failing_copies
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers, floats

OVERLAP = {"overlap_copies": True, "max_batch_size": 4}
GRAPHS = pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
COMPUTE, THERE, HOME = "stream 1", "stream 2", "stream 3"


def begin(checked: CheckedModel, rows: Array) -> UnderWay:
    """Begin a batch as a worker does."""

    def collate(allocate: Any) -> dict[str, Array]:
        buffer = allocate("x", rows.shape, rows.dtype)
        buffer[...] = rows
        return {"x": buffer}

    return checked.begin(collate, len(rows))


@GRAPHS
def test_each_batch_under_way_gets_its_own_answers(
    folders: Folders, gpu: FakeGpu, graphs: bool
) -> None:
    plain = folders.load(network(folders), max_batch_size=4)
    checked = folders.load(network(folders), **OVERLAP, cuda_graphs=graphs)
    batches = [floats(1 + index % 4) + index for index in range(8)]
    found = []
    under_way = [begin(checked, batches[0])]
    for rows in [*batches[1:], None]:
        if rows is not None:
            under_way.append(begin(checked, rows))
        found.append(under_way.pop(0).result()[0]["y"])
    for rows, answer in zip(batches, found, strict=True):
        np.testing.assert_allclose(answer, answers(plain, x=rows)["y"], rtol=1e-6)


@GRAPHS
def test_more_batches_than_slots_wait_for_their_memory_alone(
    folders: Folders, gpu: FakeGpu, graphs: bool
) -> None:
    checked = folders.load(network(folders), **OVERLAP, cuda_graphs=graphs)
    batches = [floats(2) + index for index in range(5)]
    expected = [answers(checked, x=rows)["y"] for rows in batches]
    gpu.events.clear()
    under_way = [begin(checked, rows) for rows in batches]
    assert {event for event in gpu.events if event.startswith("wait")} == {
        f"wait for a point of {THERE}"
    }
    for each, answer in zip(under_way, expected, strict=True):
        np.testing.assert_array_equal(each.result()[0]["y"], answer)


def test_streams_wait_for_each_other_and_the_host_for_answers_alone(
    folders: Folders, gpu: FakeGpu
) -> None:
    checked = folders.load(network(folders), **OVERLAP, cuda_graphs=True)
    answers(checked, x=floats(2))
    answers(checked, x=floats(2))
    gpu.events.clear()
    first, second = begin(checked, floats(2)), begin(checked, floats(2))
    first.result()
    second.result()
    one_batch = [
        f"wait for a point of {THERE}",
        f"copy there on {THERE}",
        f"{COMPUTE} waits for {THERE}",
        f"replay on {COMPUTE}",
        f"{HOME} waits for {COMPUTE}",
        f"copy home on {HOME}",
    ]
    assert gpu.events == [*one_batch, *one_batch, *[f"wait for a point of {HOME}"] * 2]


def test_no_memory_is_pinned_after_warm_up(folders: Folders, gpu: FakeGpu) -> None:
    checked = folders.load(network(folders), **OVERLAP)
    gpu.pinned_bytes.clear()
    for rows in (4, 1, 3, 4, 2):
        answers(checked, x=floats(rows))
    assert gpu.pinned_bytes == []


def test_what_a_model_raises_fails_its_batch_alone(folders: Folders, gpu: FakeGpu) -> None:
    source = """
class Model(torch.nn.Module):
    def forward(self, x):
        if x[0, 0] < 0:
            raise ValueError("below zero")
        return x * 2
"""
    checked = folders.load(folders.python(source), **OVERLAP)
    first = begin(checked, floats(2))
    with pytest.raises(ValueError, match="below zero"):
        begin(checked, -1 - floats(2))
    waits = [f"wait for {COMPUTE}", f"wait for {HOME}"]
    assert gpu.events[-2:] == waits, "memory that kernels may still read was given back"
    third = begin(checked, floats(3))
    assert first.result()[0]["y"].tolist() == (floats(2) * 2).tolist()
    assert third.result()[0]["y"].tolist() == (floats(3) * 2).tolist()


def test_outputs_whose_copies_fail_half_way_are_waited_for_before_their_memory_is_freed(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = "[{name: y, dtype: FP32, shape: [4]}, {name: z, dtype: FP32, shape: [4]}]"
    source = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x, x + 1\n"
    checked = folders.load(folders.python(source, outputs=two), **OVERLAP)
    monkeypatch.setattr(gpu, "to_host", failing_copies(gpu))
    with pytest.raises(RuntimeError, match="pinned"):
        begin(checked, floats(2))
    first = gpu.events.index("copy begins")
    waits = [f"wait for {COMPUTE}", f"wait for {HOME}"]
    assert gpu.events[first : first + 4] == ["copy begins", "copies fail", *waits]


def test_a_module_that_writes_into_the_same_memory_changes_no_earlier_answer(
    folders: Folders, gpu: FakeGpu
) -> None:
    source = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.answer = torch.zeros(2, 4)

    def forward(self, x):
        return self.answer[: len(x)].copy_(x)
"""
    checked = folders.load(folders.python(source), overlap_copies=True, max_batch_size=2)
    first, second = begin(checked, floats(2)), begin(checked, floats(2) + 1)
    assert first.result()[0]["y"].tolist() == floats(2).tolist()
    assert second.result()[0]["y"].tolist() == (floats(2) + 1).tolist()


def test_on_a_cpu_nothing_overlaps_and_the_log_says_so(folders: Folders) -> None:
    assert folders.load(network(folders), **OVERLAP).model.overlaps is False
    assert [step for step in folders.progress if "overlap_copies" in step] == [
        "note: expected a GPU for overlap_copies; got the CPU, where nothing is copied"
    ]


def test_where_batches_run_in_a_process_of_their_own_the_log_says_that_none_overlap() -> None:
    settings = ModelSettings(overlap_copies=True, worker="process")
    (note,) = unused_notes(settings, "python", "cuda:0")
    assert note.startswith("expected `worker: thread` for overlap_copies; got process")
    assert unused_notes(ModelSettings(overlap_copies=True), "python", "cuda:0") == []


def test_one_batch_at_a_time_cannot_overlap() -> None:
    settings = ModelSettings(overlap_copies=True, pipeline_depth=1)
    assert settings.contradiction() == (
        "overlap_copies",
        "`pipeline_depth: 2` beside it",
        "pipeline_depth 1",
    )


@pytest.mark.cuda
@GRAPHS
def test_on_cuda_overlapped_batches_get_their_own_answers(folders: Folders, graphs: bool) -> None:
    settings = {"device": "cuda:0", "max_batch_size": 1024, "overlap_copies": True}
    source = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x * 2\n"
    checked = folders.load(folders.python(source), **settings, cuda_graphs=graphs)
    assert checked.model.overlaps
    batches = [np.full((1024, 4), index, "<f4") for index in range(50)]
    under_way, found = [begin(checked, batches[0])], []
    for rows in [*batches[1:], None]:
        if rows is not None:
            under_way.append(begin(checked, rows))
        found.append(under_way.pop(0).result()[0]["y"])
    for rows, answer in zip(batches, found, strict=True):
        np.testing.assert_array_equal(answer, rows * 2)


@pytest.mark.cuda
def test_on_cuda_no_memory_is_taken_in_steady_state(folders: Folders) -> None:
    settings = {"device": "cuda:0", "max_batch_size": 64, "overlap_copies": True}
    checked = folders.load(network(folders), **settings, cuda_graphs=True)
    for rows in range(1, 65):
        answers(checked, x=floats(rows))
    before = torch.cuda.memory_stats()["num_alloc_retries"], torch.cuda.memory_reserved()
    for rows in range(1, 65):
        answers(checked, x=floats(rows))
    assert (torch.cuda.memory_stats()["num_alloc_retries"], torch.cuda.memory_reserved()) == before
