"""`memory_limit`: what is looked at before and after a load, and what is refused in which words."""

from __future__ import annotations

import re
import weakref
from typing import Any

import numpy as np
import pytest

from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models import memory_limit
from batcher.models.loading import load_model
from batcher.models.onnx import model as onnx_model
from batcher.models.pytorch import aoti
from batcher.models.pytorch.module import TorchModule
from batcher.workers.process import child_load
from batcher.workers.process.messages import LoadFailed, Prepare
from tests.support.model_folders import Folders, answers, floats, multiplied_by
from tests.support.model_folders import folders as folders

GIB = 1 << 30
MODULE = """
class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2
"""


class FakeMemory:
    """A device of 24 GiB, of which a model takes some while it loads and runs.

    Attributes:
        events: what was asked of it, in order.
        others: bytes that others have taken, by stream.
        free: streams that earlier models have left.
        own: bytes that the model takes, by stream, from its load on.
        alive: the model, while it lives.
    """

    def __init__(self) -> None:
        """Have others hold 4 GiB in a stream of theirs."""
        self.events: list[str] = []
        self.others = {7: 4 * GIB}
        self.free: set[int] = set()
        self.own: dict[int, int] = {}
        self.alive: weakref.ref[Any] = weakref.ref(self)

    def room(self) -> tuple[int, int]:
        return 20 * GIB, 24 * GIB

    def held(self) -> dict[int, int]:
        if "held" not in self.events:
            self.events.append("held")
            return dict(self.others)
        return {**self.others, **self.own}

    def free_streams(self) -> set[int]:
        return self.free

    def give_back(self) -> None:
        self.events.append("give back" if self.alive() is not None else "give back all")

    def enforce(self, limit: int) -> None:
        self.events.append(f"enforce {limit}")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> FakeMemory:
    """The memory of the device that models load on, which is the CPU."""
    fake = FakeMemory()
    monkeypatch.setattr(memory_limit, "_memory_of", lambda form, device: fake)
    load = TorchModule.load

    def noting(model: TorchModule, device: str) -> None:
        fake.alive = weakref.ref(model)
        load(model, device)

    monkeypatch.setattr(TorchModule, "load", noting)
    return fake


def test_a_model_within_its_limit_is_served_and_what_the_load_alone_needed_is_given_back(
    folders: Folders, memory: FakeMemory
) -> None:
    memory.own = {9: 2 * GIB}
    checked = folders.load(folders.python(MODULE), memory_limit="2GiB")
    assert multiplied_by(checked) == 2
    assert memory.events == ["held", "give back"]
    assert not any("free" in step for step in folders.progress)


def test_a_model_beyond_its_limit_is_refused_by_its_name_and_its_memory_is_free_again(
    folders: Folders, memory: FakeMemory
) -> None:
    memory.own = {9: 2 * GIB, 10: GIB // 2}
    with pytest.raises(ModelLoadError) as caught:
        folders.load(folders.python(MODULE), memory_limit="2GiB", cuda_graphs="auto")
    assert str(caught.value) == (
        "model 'm' version 1: expected to take at most the memory_limit of 2 GiB on cpu; took "
        "2.5 GiB, loaded and warmed up. Set a max_batch_size below 4, `dtype: bf16`, "
        "`cuda_graphs: false`, or a higher memory_limit"
    )
    assert caught.value.stage == "", "no code of the model has raised"
    assert memory.events[-1] == "give back all"


@pytest.mark.parametrize(
    ("own", "refused"),
    [
        ({7: 9 * GIB}, False),  # the stream of another model, which runs batches
        ({0: 2 * GIB}, True),  # the default stream is everybody's
        ({0: GIB // 2, 9: GIB // 2}, False),
        ({0: GIB, 9: GIB // 2}, True),
    ],
)
def test_growth_counts_in_streams_that_are_new_and_in_the_default_one(
    folders: Folders, memory: FakeMemory, own: dict[int, int], refused: bool
) -> None:
    memory.own = own
    definition = folders.python(MODULE)
    if refused:
        with pytest.raises(ModelLoadError, match="memory_limit of 1 GiB"):
            folders.load(definition, memory_limit="1GiB")
    else:
        folders.load(definition, memory_limit="1GiB")


def test_what_others_held_before_in_the_default_stream_does_not_count(
    folders: Folders, memory: FakeMemory
) -> None:
    memory.others, memory.own = {0: 4 * GIB}, {0: 5 * GIB}
    folders.load(folders.python(MODULE), memory_limit="1GiB")


def test_growth_counts_in_a_stream_that_an_earlier_model_has_left(
    folders: Folders, memory: FakeMemory
) -> None:
    memory.free, memory.own = {7}, {7: 6 * GIB}
    with pytest.raises(ModelLoadError, match="took 2 GiB"):
        folders.load(folders.python(MODULE), memory_limit="1GiB")


def test_less_free_memory_than_the_limit_is_told_and_the_load_goes_on(
    folders: Folders, memory: FakeMemory
) -> None:
    folders.load(folders.python(MODULE), memory_limit="21GiB")
    assert (
        "note: cpu has 20 GiB of 24 GiB free, less than the memory_limit of 21 GiB. The load fails "
        "if the model needs more"
    ) in folders.progress


def test_a_model_alone_in_its_process_is_held_to_the_limit_before_it_loads(
    folders: Folders, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(device="cpu", max_batch_size=4, memory_limit="1GiB")
    definition = folders.python(MODULE)
    load_model(definition, settings, folders.progress.append, is_alone=True)
    assert memory.events == [f"enforce {GIB}", "held", "give back"]

    def load(*arguments: object, is_alone: bool) -> None:
        raise ModelLoadError(f"alone: {is_alone}")

    monkeypatch.setattr(child_load, "load_model", load)
    told: list[object] = []
    assert child_load.load_and_tell(Prepare(definition, settings), told.append) is None
    assert told == [LoadFailed("alone: True", "")]


def test_weights_in_native_code_count_though_pytorch_does_not_hold_them(
    folders: Folders, memory: FakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aoti, "compiled_module", lambda *arguments: lambda x: x * 2)
    source = (
        MODULE
        + """
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(256))
        self.register_buffer("table", torch.zeros(128))
"""
    )
    definition = folders.python(source)
    assert multiplied_by(folders.load(definition, memory_limit="2KiB", compile="aoti")) == 2
    memory.events.clear()
    memory.own = {9: 1024}
    with pytest.raises(ModelLoadError, match=r"memory_limit of 2 KiB on cpu; took 2\.5 KiB"):
        folders.load(definition, memory_limit="2KiB", compile="aoti")


@pytest.mark.parametrize("place", ["__init__", "forward"])
def test_memory_that_is_full_during_a_load_under_a_limit_is_told_with_the_way_out(
    folders: Folders, memory: FakeMemory, place: str
) -> None:
    source = MODULE + "\n    def __init__(self):\n        super().__init__()\n"
    error = 'raise torch.OutOfMemoryError("CUDA out of memory. 1.00 GiB allowed")'
    line = "super().__init__()" if place == "__init__" else "return x * 2"
    with pytest.raises(ModelLoadError, match=r"1.00 GiB allowed.*Set a max_batch_size below 4, "):
        folders.load(folders.python(source.replace(line, error)), memory_limit="1GiB")


def test_on_the_cpu_the_log_says_that_nothing_is_limited(folders: Folders) -> None:
    checked = folders.load(folders.python(MODULE), memory_limit=1)
    assert multiplied_by(checked) == 2
    note = "note: expected a GPU for memory_limit; got the CPU, where nothing limits a model's"
    assert any(step.startswith(note) for step in folders.progress)
    folders.progress.clear()
    folders.load(folders.python(MODULE))
    assert not any("memory_limit" in step for step in folders.progress)


def test_onnxruntime_is_told_the_limit(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = folders.define("format: onnx\nfile: net.onnx", {"net.onnx": b""})
    seen: list[Any] = []

    def open_session(path: object, graph: object, threads: int, providers: list[Any]) -> None:
        seen.extend(providers)
        raise ModelLoadError("no session")

    monkeypatch.setattr(onnx_model, "open_session", open_session)
    for limit in (None, "1GiB"):
        model = onnx_model.MODEL(definition, ModelSettings(memory_limit=limit))
        with pytest.raises(ModelLoadError, match="no session"):
            model.load("cuda:1")
    assert [options for _, options in (seen[0], seen[2])] == [
        {"device_id": 1},
        {"device_id": 1, "gpu_mem_limit": GIB},
    ]


@pytest.mark.cuda
def test_what_a_model_takes_of_a_gpu_is_seen_and_given_back(folders: Folders) -> None:
    import torch

    source = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(64 << 20, dtype=torch.uint8))

    def forward(self, x):
        return x * 2 + self.table[:4]
"""
    definition = folders.python(source)
    folders.load(definition, device="cuda:0", memory_limit="100MiB")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with pytest.raises(ModelLoadError, match=re.escape("memory_limit of 32 MiB on cuda:0; took")):
        folders.load(definition, device="cuda:0", memory_limit="32MiB")
    assert torch.cuda.memory_reserved() <= before
    kept = folders.load(definition, device="cuda:0")
    with pytest.raises(ModelLoadError, match="memory_limit"):
        folders.load(definition, device="cuda:0", memory_limit="32MiB")
    np.testing.assert_array_equal(answers(kept, x=floats())["y"], floats() * 2 + 1)


@pytest.mark.cuda
def test_a_process_of_its_own_on_a_gpu_has_no_more_than_the_limit(folders: Folders) -> None:
    import torch

    source = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(256 << 20, dtype=torch.uint8))

    def forward(self, x):
        return x * 2
"""
    settings = ModelSettings(device="cuda:0", max_batch_size=4, memory_limit="64MiB")
    try:
        with pytest.raises(ModelLoadError, match=r"out of memory.*higher memory_limit"):
            load_model(folders.python(source), settings, folders.progress.append, is_alone=True)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
        torch.cuda.empty_cache()
