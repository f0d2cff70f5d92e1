"""CUDA graphs: which sizes, what is captured, what a batch replays, and who has none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.core.run_sizes import RunSizes
from batcher.models.pytorch.graphs import ladder
from tests.models.pytorch.test_precision import NETWORK, archived
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers, floats

needs_cuda = pytest.mark.cuda
EIGHT = {"cuda_graphs": True, "max_batch_size": 8}
FORWARD = """
class Model(torch.nn.Module):
    def forward(self, x):
        {}
"""
COUNT = """
    runs = 0

    def count(self):
        self.runs += 1
        return self.runs
"""


def network(folders: Folders) -> ModelDefinition:
    """Return a module that notes nothing in Python."""
    return folders.python("\n".join(line for line in NETWORK.split("\n") if "SEEN" not in line))


def test_from_four_rows_on_a_batch_is_filled_up_by_at_most_a_quarter() -> None:
    for most in (1, 2, 3, 5, 64, 100, 1024):
        sizes = ladder(most)
        assert sizes[-1] == most
        assert list(sizes) == sorted(set(sizes))
        for rows in range(4, most + 1):
            assert RunSizes(sizes=sizes).runs_as(rows) - rows <= rows / 4
    assert ladder(64) == (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)


def test_every_size_is_captured_at_start_the_largest_first(folders: Folders, gpu: FakeGpu) -> None:
    checked = folders.load(network(folders), **EIGHT)
    steps = [step for step in folders.progress if step.startswith("capturing")]
    assert steps == [f"capturing a graph, batch size {size}" for size in (8, 6, 4, 2, 1)]
    assert gpu.events.count("capture") == 5
    loaded = checked.loaded()
    assert (loaded.run_sizes.sizes, loaded.max_rows, loaded.one_call) == ((1, 2, 4, 6, 8), 8, True)
    assert loaded.timings.keys() == {1, 2, 4, 6, 8}


@pytest.mark.parametrize("rows", range(1, 9))
def test_a_batch_is_one_replay_and_its_answers_are_those_of_the_module(
    folders: Folders, gpu: FakeGpu, rows: int
) -> None:
    definition = network(folders)
    expected = answers(folders.load(definition, max_batch_size=8), x=floats(rows))["y"]
    checked = folders.load(definition, **EIGHT)
    gpu.events.clear()
    found = answers(checked, x=floats(rows))["y"]
    assert gpu.events == ["replay on stream 2", "wait for stream 2"]
    np.testing.assert_array_equal(found, expected)


def test_answers_outlive_the_batches_after_them(folders: Folders, gpu: FakeGpu) -> None:
    checked = folders.load(network(folders), **EIGHT)
    first = answers(checked, x=floats(4))["y"]
    kept = first.copy()
    answers(checked, x=floats(4) + 1)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("kind", ["export", "torchscript"])
def test_archives_are_captured_too(folders: Folders, gpu: FakeGpu, kind: str) -> None:
    definition = folders.define(f"format: {kind}\nfile: net.pt2", {"net.pt2": archived(kind)})
    expected = answers(folders.load(definition), x=floats())["y"]
    checked = folders.load(definition, cuda_graphs=True, dtype="fp32")
    gpu.events.clear()
    np.testing.assert_allclose(answers(checked, x=floats())["y"], expected, rtol=1e-5)
    assert gpu.events[0].startswith("replay")


def test_sizes_of_the_model_are_the_sizes_of_its_graphs(folders: Folders, gpu: FakeGpu) -> None:
    definition = folders.python(NETWORK, head="\nbatch_sizes: [1, 4]")
    assert folders.load(definition, **EIGHT).loaded().run_sizes.sizes == (1, 4)
    assert gpu.events.count("capture") == 2


def test_what_a_hook_makes_is_what_is_captured(folders: Folders, gpu: FakeGpu) -> None:
    hook = """
    def preprocess(self, inputs):
        return {"x": np.repeat(inputs["x"], 2, axis=1)}
"""
    source = FORWARD.format("return x[:, ::2] * 2") + hook
    checked = folders.load(folders.python(source), **EIGHT)
    gpu.events.clear()
    prepared = np.repeat(floats(3), 2, axis=1)
    np.testing.assert_array_equal(answers(checked, x=prepared)["y"], floats(3) * 2)
    assert gpu.events[0].startswith("replay")


def test_a_batch_of_another_form_runs_without_a_graph(folders: Folders, gpu: FakeGpu) -> None:
    hook = "    def preprocess(self, inputs):\n        return inputs\n"
    checked = folders.load(folders.python(FORWARD.format("return x[:, :4]") + hook), **EIGHT)
    gpu.events.clear()
    assert answers(checked, x=floats(2, 5))["y"].tolist() == floats(2, 5)[:, :4].tolist()
    assert not any(event.startswith("replay") for event in gpu.events)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_batch_is_a_replay_in_whatever_order_its_inputs_were_sent(
    folders: Folders, gpu: FakeGpu, names: str
) -> None:
    inputs = "[{name: a, dtype: FP32, shape: [4]}, {name: b, dtype: FP32, shape: [4]}]"
    source = FORWARD.format("return a - b").replace("self, x", "self, a, b")
    checked = folders.load(folders.python(source, inputs=inputs), **EIGHT)
    gpu.events.clear()
    sent = {name: floats(2) * (3 if name == "a" else 1) for name in names}
    np.testing.assert_array_equal(answers(checked, **sent)["y"], floats(2) * 2)
    assert gpu.events[0].startswith("replay")


@pytest.mark.parametrize(
    ("forward", "complaint"),
    [
        ("return x * x.sum().item()", "operation not permitted when stream is capturing"),
        ("x.nonzero()\n        return x * 2", "not permitted"),
        ("return x * self.count()", "expected the same answers from a graph"),
        ("return {'y': x, 'rows': len(x)}", "expected outputs that are tensors on cpu, .* got int"),
    ],
    ids=["waits for the device", "of a size that values decide", "counts in Python", "numbers"],
)
def test_who_cannot_be_captured_says_so_and_runs_as_it_is(
    folders: Folders, gpu: FakeGpu, forward: str, complaint: str
) -> None:
    checked = folders.load(folders.python(FORWARD.format(forward) + COUNT), **EIGHT)
    (note,) = [step for step in folders.progress if step.startswith("no CUDA graphs")]
    assert re.search(complaint, note)
    assert note.endswith("It is served as it is")
    gpu.events.clear()
    assert answers(checked, x=floats())["y"].shape == (3, 4)
    assert gpu.events == ["wait for stream 1"]
    assert checked.loaded().run_sizes.sizes == ()


@pytest.mark.parametrize(
    ("more", "settings", "complaint"),
    [
        ({"inputs": "[{name: x, dtype: FP32, shape: [-1], warmup_shape: [4]}]"}, {}, "free axes"),
        ({"head": "\ngradients: true"}, {}, "expected `gradients: false`"),
        ({}, {"warmup": False}, "expected `warmup: true`"),
    ],
    ids=["free axes", "gradients", "no warm-up"],
)
def test_models_whose_batches_have_no_fixed_form_have_no_graphs(
    folders: Folders, gpu: FakeGpu, more: dict[str, str], settings: dict[str, Any], complaint: str
) -> None:
    checked = folders.load(folders.python(NETWORK, **more), **EIGHT, **settings)
    assert any(complaint in step for step in folders.progress)
    assert checked.loaded().run_sizes.sizes == ()


@pytest.mark.parametrize(
    ("times", "sizes"), [([1.0, 0.5], (1, 2, 4, 6, 8)), ([1.0, 0.95], ())], ids=["faster", "not"]
)
def test_auto_keeps_graphs_where_a_replay_is_faster(
    folders: Folders, gpu: FakeGpu, times: list[float], sizes: tuple[int, ...]
) -> None:
    gpu.times = times
    checked = folders.load(network(folders), max_batch_size=8, cuda_graphs="auto")
    assert checked.loaded().run_sizes.sizes == sizes


def test_on_a_cpu_auto_is_silent_and_true_says_why(folders: Folders) -> None:
    for setting, said in (("auto", 0), (True, 1)):
        folders.progress.clear()
        checked = folders.load(network(folders), cuda_graphs=setting)
        assert checked.loaded().run_sizes.sizes == ()
        assert sum("expected `device: cuda`; got cpu" in step for step in folders.progress) == said


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("false", False), ("auto", "auto"), ("'false'", False)]
)
def test_graphs_are_true_false_or_auto(text: str, value: object) -> None:
    setting = {"true": True, "false": False}.get(text, text.strip("'"))
    defaults: Any = {"cuda_graphs": setting}
    assert ServerSettings(defaults=defaults).defaults.cuda_graphs == value


@needs_cuda
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_on_cuda_answers_of_graphs_are_those_of_the_module(folders: Folders, dtype: str) -> None:
    definition = network(folders)
    plain = folders.load(definition, device="cuda:0", max_batch_size=64, dtype=dtype)
    graphs = folders.load(
        definition, device="cuda:0", max_batch_size=64, dtype=dtype, cuda_graphs=True
    )
    assert graphs.loaded().run_sizes.sizes == ladder(64)
    for rows in (1, 3, 17, 64):
        expected = answers(plain, x=floats(rows) / 100)["y"]
        np.testing.assert_allclose(
            answers(graphs, x=floats(rows) / 100)["y"], expected, rtol=5e-2, atol=5e-2
        )


@needs_cuda
def test_on_cuda_a_module_that_waits_for_the_device_runs_as_it_is(folders: Folders) -> None:
    source = FORWARD.format("return x * x.sum().item()")
    checked = folders.load(folders.python(source), device="cuda:0", cuda_graphs=True)
    assert any(step.startswith("no CUDA graphs") for step in folders.progress)
    ones = np.ones((2, 4), "<f4")
    np.testing.assert_allclose(answers(checked, x=ones)["y"], ones * 8)
    # a capture that failed leaves no trace: memory is given back, and the next model has graphs
    torch.cuda.empty_cache()
    assert folders.load(network(folders), device="cuda:0", cuda_graphs=True).loaded().one_call
