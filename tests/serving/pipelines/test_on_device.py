"""Values of a pipeline that stay on a GPU between two models, and those that go by the host."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from batcher.config.pipelines.expression import parse_condition
from batcher.config.pipelines.plan import Plan, Step
from batcher.core import device_rows
from batcher.errors import ModelError
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Progress
from batcher.models.pytorch import kept_rows, module
from batcher.serving.pipelines.on_device import passages_of
from tests.support.fake_gpu import FakeEvent, FakeGpu
from tests.support.model_folders import Folders
from tests.support.pipelines import CASCADE, CHAIN, Pipelines
from tests.support.serving import SETTINGS

ROW = 16
"""Bytes of a row of four floats."""

TIMES = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x * {}\n"
REFUSES_48 = """
class Model(torch.nn.Module):
    def forward(self, x):
        if (x == 48).any():
            raise ValueError("48")
        return x * 3
"""
LATE = """
format: pipeline
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4], from: last.y}]
steps:
  - {name: small, model: one, inputs: {x: x}}
  - name: large
    model: one
    inputs: {x: small.y}
    when: max(small.y) < 10
    else: {y: small.y}
  - {name: last, model: two, inputs: {x: large.y}}
"""
"""What the last model takes was made by one of two steps."""


class LookedAt(FakeEvent):
    """A point in the work of a stream that has come whenever somebody looks."""

    def query(self) -> bool:
        """Do the work before this point."""
        self.come()
        return True


class OwnGpu(FakeGpu):
    """A GPU that no other thread works on, as fast as its batches come."""

    def event(self) -> FakeEvent:
        """Return a new event."""
        return LookedAt(self)


class OnGpus(Pipelines):
    """A server of modules, each on the same GPU that is none."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """Write models and pipelines below `folder`."""
        super().__init__(folder, **settings)
        self.folders = Folders(folder)
        self.loaded: set[str] = set()

    def module(self, name: str, source: str, **settings: Any) -> None:
        """Load a module that takes `x` and gives `y`, four floats a row; or load it again."""
        chosen = {"max_batch_size": 4, "max_delay_ms": 0, "device": "cpu", **settings}
        found = self.folders.python(source, name=name)

        def load(progress: Progress) -> CheckedModel:
            return self.folders.load(found, **chosen)

        put = self.server.replace if name in self.loaded else self.server.add
        self.loaded.add(name)
        assert self.loop.wait_for(put(found, SETTINGS.model_copy(update=chosen), load)) is None

    def on_device(self, name: str) -> int:
        """Return how many rows the model has taken from the device."""
        return self.server.metrics.model(name, "1").copied_bytes["on_device"] // ROW

    def to_device(self, name: str) -> int:
        """Return how many rows the model has got from the host."""
        return self.server.metrics.model(name, "1").copied_bytes["to_device"] // ROW


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models on the CPU run on GPUs: one each, as their threads are in no order."""
    monkeypatch.setattr(module, "gpu_of", lambda device: OwnGpu())
    monkeypatch.setattr(module, "PinnedStaging", lambda: module.FreshMemory())
    monkeypatch.setattr(kept_rows, "LEAST_PIECE_BYTES", 0)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[OnGpus]:
    """The models `one`, which doubles, and `two`, which trebles and refuses 48."""
    pipelines = OnGpus(tmp_path)
    pipelines.module("one", TIMES.format(2))
    pipelines.module("two", REFUSES_48)
    yield pipelines
    pipelines.end()
    gc.collect()
    assert device_rows._TWINS == {}


def test_the_second_model_takes_what_the_first_one_gave_from_the_device(two: OnGpus) -> None:
    two.ready(CHAIN)
    two.turn()

    assert two.values(two.infer(1, 2, 3, model="p")) == [6, 12, 18]
    assert (two.on_device("one"), two.to_device("one")) == (0, 3)
    assert (two.on_device("two"), two.to_device("two")) == (3, 0)


def test_rows_are_those_of_the_device_and_not_of_the_host(
    two: OnGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "_flat", lambda value, own: (value + 100).view(-1))
    two.ready(CHAIN)
    two.turn()

    assert two.values(two.infer(1, 2, model="p")) == [306, 312]
    assert two.values(two.infer(1, model="one")) == [2]
    assert two.values(two.infer(1, model="two")) == [3]


def test_a_model_that_no_pipeline_asks_keeps_and_takes_nothing(two: OnGpus) -> None:
    version = two.ready(CHAIN)
    two.turn()
    version.unload()
    two.turn()

    outputs = two.response(two.infer(1, model="one")).outputs

    assert device_rows.rows_on_device(outputs["y"]) is None
    assert two.server.find("two").workers.devices == {"cpu"}


def test_while_the_model_that_takes_is_away_the_other_one_keeps_nothing(two: OnGpus) -> None:
    two.ready(CHAIN)
    two.turn()
    two.loop.wait_for(two.server.unload(two.server.find("two")))
    two.loaded.discard("two")
    two.turn()

    outputs = two.response(two.infer(1, model="one")).outputs
    assert device_rows.rows_on_device(outputs["y"]) is None

    two.module("two", REFUSES_48)
    two.turn()
    assert two.values(two.infer(1, model="p")) == [6]
    assert two.on_device("two") == 1


def test_a_program_that_changes_an_answer_and_sends_it_gets_what_it_sent(two: OnGpus) -> None:
    two.ready(CHAIN)
    two.turn()
    answer = two.response(two.infer(1, model="one")).outputs["y"]
    answer += 5

    assert two.values(two.infer(model="two", inputs={"x": answer})) == [21]
    assert two.on_device("two") == 0


def test_a_request_of_more_rows_than_a_batch_is_cut_on_the_device_too(two: OnGpus) -> None:
    two.ready(CHAIN)
    two.turn()

    # What is joined again on the host has no place on the device.
    assert two.values(two.infer(*range(6), model="p")) == [6 * value for value in range(6)]
    assert (two.on_device("two"), two.to_device("two")) == (0, 6)

    two.server.find("two").scheduler.loaded({}, max_rows=1)
    assert two.values(two.infer(1, 2, 3, model="p")) == [6, 12, 18]
    assert (two.on_device("two"), two.to_device("two")) == (3, 6)


def test_rows_that_a_condition_has_chosen_come_from_the_host_and_whole_requests_do_not(
    tmp_path: Path,
) -> None:
    pipelines = OnGpus(tmp_path)
    pipelines.module("one", TIMES.format(2))
    pipelines.module("two", TIMES.format(3))
    pipelines.ready(CASCADE.replace("{x: x}\n    when", "{x: small.y}\n    when"))
    pipelines.turn()

    assert pipelines.values(pipelines.infer(1, 7, 2, model="p")) == [6, 14, 12]
    assert (pipelines.on_device("two"), pipelines.to_device("two")) == (0, 2)
    assert pipelines.values(pipelines.infer(1, 2, model="p")) == [6, 12]
    assert (pipelines.on_device("two"), pipelines.to_device("two")) == (2, 2)
    pipelines.end()


def test_what_one_of_two_steps_has_made_is_found_where_one_made_all_rows(two: OnGpus) -> None:
    two.ready(LATE)
    two.turn()

    assert two.values(two.infer(1, 2, model="p")) == [12, 24]
    assert two.on_device("two") == 2
    assert two.values(two.infer(6, 7, model="p")) == [36, 42]
    assert two.on_device("two") == 4
    assert two.values(two.infer(1, 7, model="p")) == [12, 42]
    assert (two.on_device("two"), two.to_device("two")) == (4, 2)


def test_a_row_that_fails_on_the_device_fails_its_request_alone(two: OnGpus) -> None:
    two.ready(CHAIN)
    two.turn()
    answers = [two.infer(value, model="p") for value in (1, 24, 2, 3)]

    assert isinstance(two.loop.error_of(answers[1]), ModelError)
    assert [two.values(answers[at]) for at in (0, 2, 3)] == [[6], [12], [18]]
    assert two.on_device("two") > 0
    assert two.to_device("two") == 0


@pytest.mark.parametrize("overlap", [False, True], ids=["one by one", "overlapped"])
def test_every_row_of_many_requests_is_its_own(tmp_path: Path, overlap: bool) -> None:
    random, pipelines = Random(overlap), OnGpus(tmp_path)
    pipelines.module("one", TIMES.format(2), overlap_copies=overlap, instances=2)
    pipelines.module("two", REFUSES_48, overlap_copies=overlap, cuda_graphs=False)
    pipelines.ready(CHAIN)
    pipelines.ready(LATE, name="late")
    pipelines.turn()
    waiting, cancelled = [], []
    for _ in range(150):
        sent = [random.choice([24, *range(24)]) for _ in range(random.randint(1, 7))]
        name = random.choice(["p", "p", "late", "two"])
        answer = pipelines.infer(*sent, model=name)
        if random.random() < 0.1:
            answer.addErrback(lambda _: None)
            answer.cancel()
            cancelled.append(answer)
        else:
            waiting.append((name, sent, answer))
    for name, sent, answer in waiting:
        first = [value * 2 if name != "two" else value for value in sent]
        given = [value * 2 if name == "late" and value < 10 else value for value in first]
        if 48 in given:
            assert isinstance(pipelines.loop.error_of(answer), ModelError)
        else:
            assert pipelines.values(answer) == [value * 3 for value in given]
    assert pipelines.on_device("two") > 0
    assert pipelines.to_device("two") > 0
    pipelines.end()
    del answer, waiting
    gc.collect()
    assert device_rows._TWINS == {}


def test_a_model_on_another_gpu_gets_its_rows_by_the_host_until_it_shares_one(two: OnGpus) -> None:
    two.ready(CHAIN)
    two.turn()
    (rows,) = two.server.find("two").workers._kept_rows.values()
    rows.device = "cuda:1"
    two.server.lifecycle.end_epoch()
    two.turn()

    assert two.values(two.infer(1, model="p")) == [6]
    assert two.on_device("two") == 0

    two.module("two", REFUSES_48)
    two.turn()

    assert two.values(two.infer(1, model="p")) == [6]
    assert two.on_device("two") == 1


def test_values_that_code_or_requests_make_are_on_no_device() -> None:
    def step(name: str, model: str, inputs: dict[str, str], **more: Any) -> Step:
        fixed: dict[str, Any] = {
            "version": "",
            "use": "",
            "options": {},
            "entry": "",
            "outputs": (),
        }
        own: dict[str, Any] = {"condition": None, "otherwise": {}, **more}
        return Step(name, ("steps",), model, inputs=inputs, **{**fixed, **own})

    condition = parse_condition("max(a.y) < 1")
    steps = (
        step("a", "one", {"x": "x"}),
        step("b", "one", {"x": "a.y"}, condition=condition, otherwise={"y": "c.y"}),
        step("c", "", {"x": "a.y"}, use="softmax"),
        step("d", "two", {"x": "b.y", "z": "c.y", "w": "x"}),
        step("e", "two", {"x": "d.y"}),
    )

    found = passages_of(Plan(steps, {}, {}))

    assert [(p.maker.name, p.output, p.taker.name, p.input) for p in found] == [
        ("a", "y", "b", "x"),
        ("b", "y", "d", "x"),
        ("d", "y", "e", "x"),
    ]


@pytest.mark.cuda
def test_on_cuda_a_pipeline_answers_as_by_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pipelines = OnGpus(tmp_path)
    size = {"device": "cuda:0", "max_batch_size": 32, "overlap_copies": True}
    pipelines.module("one", TIMES.format(2), cuda_graphs=True, **size)
    pipelines.module("two", TIMES.format(3), cuda_graphs=True, **size)
    pipelines.ready(CHAIN)
    pipelines.turn()
    asked = [(start, pipelines.infer(*range(start, start + 8), model="p")) for start in range(200)]

    for start, answer in asked:
        assert pipelines.values(answer) == [value * 6 for value in range(start, start + 8)]
    assert pipelines.on_device("two") > 0
    assert torch.cuda.is_available()
    pipelines.end()
