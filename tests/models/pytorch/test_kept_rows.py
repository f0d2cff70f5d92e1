"""Rows that a module keeps on its GPU, and rows that another module takes from there."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch

from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.batching.worker import Outcome
from batcher.core.device_rows import InputsOnDevice, RowsOnDevice, rows_on_device
from batcher.core.device_work import DeviceWork
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from batcher.models.kept_rows import Wish
from batcher.models.pytorch import kept_rows, module
from batcher.workers.run_batch import run_batch
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers, floats

TWICE = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x * 2\n"
IN_PLACE = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x.mul_(2)\n"
ROW = 16
"""Bytes of a row of four floats."""

KEEPS = Wish(keeps=frozenset({"y"}), devices=frozenset({"cpu", "cuda:0"}))
TAKES = Wish(takes=frozenset({"x"}), devices=frozenset({"cpu", "cuda:0"}))
WAYS = pytest.mark.parametrize("overlap", [False, True], ids=["one by one", "overlapped"])


@pytest.fixture(autouse=True)
def tiny_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few bytes are worth finding."""
    monkeypatch.setattr(kept_rows, "LEAST_PIECE_BYTES", 0)


def loaded(
    folders: Folders, wish: Wish, source: str = TWICE, name: str = "m", **settings: Any
) -> CheckedModel:
    """Return a module that does what `wish` asks; `define` of settings goes into its folder."""
    define = settings.pop("define", {})
    checked = folders.load(folders.python(source, name=name, **define), **settings)
    assert checked.model.kept_rows is not None
    checked.model.kept_rows.follow(wish)
    return checked


def part_of(array: Array, twin: RowsOnDevice | None) -> Part:
    """Return a request for `x`, which lies at `twin` as well."""
    inputs = InputsOnDevice({"x": array})
    inputs.twins = {} if twin is None else {"x": twin}
    return Part(inputs, len(array), array.nbytes, (), 1, 0.0, 0.0)


def run(checked: CheckedModel, *parts: Part) -> Outcome:
    """Run one batch as a worker does."""
    outcome = run_batch(checked, Batch(parts), 0.0, perf_counter)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def values(outcome: Outcome) -> list[list[float]]:
    """Return the first element of each row of each part."""
    return [part["y"][:, 0].tolist() for part in outcome.results]


def twin(*numbers: float, device: str = "cpu", dtype: torch.dtype = torch.float32) -> RowsOnDevice:
    """Return rows on a device that are all of one number each."""
    values = torch.tensor(numbers, dtype=dtype).repeat_interleave(4)
    return RowsOnDevice(values, device, 0)


def zeros(rows: int) -> Array:
    """Return what lies on the host, where no model is to take it."""
    return np.zeros((rows, 4), "<f4")


@WAYS
def test_rows_that_are_asked_for_stay_on_the_device_and_come_to_the_host(
    folders: Folders, gpu: FakeGpu, overlap: bool
) -> None:
    checked = loaded(folders, KEEPS, overlap_copies=overlap)

    outputs = answers(checked, x=floats(3))
    later = answers(checked, x=floats(3) + 100)

    found, other = rows_on_device(outputs["y"][1:]), rows_on_device(later["y"])
    assert found is not None
    assert other is not None
    assert found.first == 4
    assert found.values.tolist() == (floats(3) * 2).ravel().tolist()
    assert outputs["y"].tolist() == (floats(3) * 2).tolist()
    assert found.values.data_ptr() != other.values.data_ptr()


@WAYS
def test_a_batch_takes_its_rows_from_the_device(
    folders: Folders, gpu: FakeGpu, overlap: bool
) -> None:
    checked = loaded(folders, TAKES, overlap_copies=overlap)
    one = twin(1, 2, 3, 4)

    outcome = run(
        checked,
        part_of(zeros(2), one),
        part_of(zeros(1), one._replace(first=12)),
        part_of(zeros(1), twin(9)),
    )

    assert values(outcome) == [[2, 4], [8], [18]]
    assert outcome.work == DeviceWork(0, 0, 4 * ROW, 4 * ROW)
    assert values(run(checked, part_of(floats(1) + 7, None))) == [[14]]


@WAYS
@pytest.mark.parametrize(
    "other",
    [None, twin(9, device="cuda:1"), twin(9, dtype=torch.float64)],
    ids=["host", "other device", "other dtype"],
)
def test_a_batch_of_which_a_row_lies_elsewhere_comes_from_the_host(
    folders: Folders, gpu: FakeGpu, overlap: bool, other: RowsOnDevice | None
) -> None:
    checked = loaded(folders, TAKES, overlap_copies=overlap)

    outcome = run(checked, part_of(zeros(1) + 1, twin(5)), part_of(zeros(1) + 2, other))

    assert values(outcome) == [[2], [4]]
    assert outcome.work == DeviceWork(0, 2 * ROW, 2 * ROW)


@WAYS
def test_a_model_that_writes_into_its_inputs_changes_no_rows_of_others(
    folders: Folders, gpu: FakeGpu, overlap: bool
) -> None:
    checked = loaded(folders, TAKES, IN_PLACE, overlap_copies=overlap)
    rows = twin(1, 2)

    for _ in range(2):
        assert values(run(checked, part_of(zeros(2), rows))) == [[2, 4]]
    assert rows.values.tolist() == [1.0] * 4 + [2.0] * 4


@WAYS
def test_a_batch_that_is_filled_up_is_so_with_its_last_row(
    folders: Folders, gpu: FakeGpu, overlap: bool
) -> None:
    source = """
class Model(torch.nn.Module):
    def forward(self, x):
        assert len(x) in (1, 4), len(x)
        return x + x[-1] * 10
"""
    checked = loaded(
        folders, TAKES, source, overlap_copies=overlap, define={"head": "\nbatch_sizes: [1, 4]"}
    )

    outcome = run(checked, part_of(zeros(2), twin(1, 2)), part_of(zeros(1), twin(3)))

    assert values(outcome) == [[31, 32], [33]]
    assert outcome.work == DeviceWork(0, 0, 4 * ROW, 4 * ROW)


def test_graphs_read_and_keep_the_rows_of_each_batch(folders: Folders, gpu: FakeGpu) -> None:
    both = KEEPS._replace(takes=frozenset({"x"}))
    checked = loaded(folders, both, overlap_copies=True, cuda_graphs=True)

    outcomes = [run(checked, part_of(zeros(3), twin(n, n + 1, n + 2))) for n in (1, 5)]

    assert [values(each) for each in outcomes] == [[[2, 4, 6]], [[10, 12, 14]]]
    found = [rows_on_device(each.results[0]["y"]) for each in outcomes]
    assert [each.values.tolist()[:12:4] for each in found if each] == [[2, 4, 6], [10, 12, 14]]
    assert sum(each.work.graph_replays for each in outcomes if each.work) == 2


def test_a_static_output_is_copied_before_the_next_batch_writes_into_it(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.answer = torch.zeros(4, 4)

    def forward(self, x):
        return self.answer[: len(x)].copy_(x)
"""
    monkeypatch.setattr(module, "to_host", lambda value: value.clone().numpy())
    checked = loaded(folders, KEEPS, source)

    # The server copies the outputs of such a model: it is the copy on the device that counts here.
    first, second = (checked.model.predict({"x": floats(2) + more}) for more in (0, 1))

    for outputs, expected in ((first, floats(2)), (second, floats(2) + 1)):
        found = rows_on_device(outputs["y"])
        assert found is not None
        assert found.values.tolist() == expected.ravel().tolist()


@pytest.mark.parametrize(
    ("source", "define", "settings"),
    [
        (TWICE, {"outputs": "[{name: y, dtype: FP16, shape: [4]}]"}, {}),
        (TWICE, {}, {"memory_limit": 1 << 30}),
        (
            TWICE + "    def postprocess(self, outputs):\n        return outputs\n",
            {},
            {},
        ),
        (
            "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x.numpy()\n",
            {},
            {},
        ),
    ],
    ids=["cast on the host", "memory_limit", "postprocess", "an array"],
)
def test_what_the_device_does_not_have_as_clients_get_it_is_not_kept(
    folders: Folders, gpu: FakeGpu, source: str, define: Any, settings: Any
) -> None:
    checked = loaded(folders, KEEPS, source, define=define, **settings)

    assert rows_on_device(answers(checked, x=floats(2))["y"]) is None


def test_numbers_of_bf16_stay_what_they_are(folders: Folders, gpu: FakeGpu) -> None:
    form = "[{{name: {}, dtype: BF16, shape: [4]}}]"
    define = {"inputs": form.format("x"), "outputs": form.format("y")}
    checked = loaded(folders, KEEPS._replace(takes=frozenset({"x"})), define=define)
    inputs = torch.arange(8).bfloat16().view(2, 4)

    outputs = answers(checked, x=inputs.view(torch.uint16).numpy())
    found = rows_on_device(outputs["y"])
    assert found is not None
    again = run(checked, part_of(np.zeros((2, 4), "<u2"), found))

    assert torch.equal(found.values.view(2, 4), inputs * 2)
    assert again.results[0]["y"].tolist() == (inputs * 4).view(torch.uint16).tolist()


def test_a_module_of_lower_precision_casts_rows_from_the_device_as_others(
    folders: Folders, gpu: FakeGpu
) -> None:
    checked = loaded(folders, TAKES, dtype="bf16")

    assert values(run(checked, part_of(zeros(1), twin(1.001)))) == [[2.0]]


def test_rows_come_into_a_module_that_computes_gradients(folders: Folders, gpu: FakeGpu) -> None:
    source = """
class Model(torch.nn.Module):
    def forward(self, x):
        x.requires_grad_()
        return torch.autograd.grad((x * x).sum(), x)[0]
"""
    maker = loaded(folders, KEEPS, name="maker")
    taker = loaded(folders, TAKES, source, define={"head": "\ngradients: true"})
    outputs = answers(maker, x=floats(2))

    outcome = run(taker, part_of(zeros(2), rows_on_device(outputs["y"])))

    assert outcome.results[0]["y"].tolist() == (floats(2) * 4).tolist()


def test_copies_are_bounded_and_free_when_their_answers_are(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "MAX_KEPT_BYTES", 5 * ROW)
    checked = loaded(folders, KEEPS)

    first, second = (answers(checked, x=floats(3))["y"] for _ in range(2))
    assert rows_on_device(first) is not None
    assert rows_on_device(second) is None
    view = first[2:]
    del first
    assert rows_on_device(answers(checked, x=floats(3))["y"]) is None
    del view
    assert rows_on_device(answers(checked, x=floats(3))["y"]) is not None


@WAYS
def test_where_there_is_no_memory_for_a_copy_the_batch_is_answered(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    asked = []

    def flat(value: torch.Tensor, own: bool) -> torch.Tensor:
        asked.append(own)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kept_rows, "_flat", flat)
    monkeypatch.setattr(kept_rows, "PAUSE_BATCHES", 2)
    checked = loaded(folders, KEEPS, overlap_copies=overlap)

    for _ in range(4):
        outputs = answers(checked, x=floats(2))
        assert outputs["y"].tolist() == (floats(2) * 2).tolist()
        assert rows_on_device(outputs["y"]) is None
    assert asked == [overlap, overlap]


@WAYS
def test_rows_of_a_batch_that_failed_are_in_no_later_batch(
    folders: Folders, gpu: FakeGpu, overlap: bool
) -> None:
    checked = loaded(folders, TAKES, overlap_copies=overlap)

    def fails(allocate: Callable[..., Array], place: Callable[..., bool]) -> dict[str, Array]:
        assert place("x", [part_of(zeros(2), twin(5, 6))])
        raise MemoryError

    with pytest.raises(MemoryError):
        checked.begin(fails, 2) if overlap else checked.predict(fails, 2)

    assert checked.model.kept_rows is not None
    assert not checked.model.kept_rows.placed
    checked.model.kept_rows.follow(Wish())
    assert values(run(checked, part_of(zeros(2) + 1, twin(5, 6)))) == [[2, 2]]


def test_pieces_too_small_to_be_worth_it_come_from_the_host(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "LEAST_PIECE_BYTES", 2 * ROW + 1)
    checked = loaded(folders, TAKES)
    rows = twin(1, 2, 3, 4)
    parts = [part_of(zeros(1), rows._replace(first=first)) for first in (0, 4, 12)]

    assert values(run(checked, *parts[:2])) == [[2], [4]]
    assert values(run(checked, *parts[1:])) == [[0], [0]]


def test_nothing_is_kept_or_taken_that_nobody_asks_for(folders: Folders, gpu: FakeGpu) -> None:
    other = Wish(frozenset({"y"}), frozenset({"x"}), frozenset({"cuda:7"}))
    checked = loaded(folders, other)

    assert rows_on_device(answers(checked, x=floats(2))["y"]) is None
    assert values(run(checked, part_of(zeros(1) + 3, twin(5)))) == [[6]]


def test_on_the_cpu_there_is_nobody_to_ask(folders: Folders) -> None:
    checked = folders.load(folders.python(TWICE))

    assert checked.model.kept_rows is checked.loaded().kept_rows is None


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [{}, {"cuda_graphs": True}], ids=["eager", "graphs"])
@WAYS
def test_on_cuda_rows_go_from_module_to_module(
    folders: Folders, overlap: bool, settings: dict[str, Any]
) -> None:
    both = KEEPS._replace(takes=frozenset({"x"}))
    settings = {**settings, "device": "cuda:0", "max_batch_size": 64, "overlap_copies": overlap}
    maker = loaded(folders, both, name="maker", **settings)
    taker = loaded(folders, both, name="taker", **settings)
    for batch in range(50):
        rows = np.full((64, 4), batch, "<f4")
        made = answers(maker, x=rows)["y"]
        parts = [part_of(zeros(8), rows_on_device(made[at : at + 8])) for at in range(0, 64, 8)]
        outcome = run(taker, *parts[:7])
        assert all((result["y"] == batch * 4).all() for result in outcome.results)
        assert outcome.work is not None
        assert (outcome.work.bytes_to_device, outcome.work.bytes_on_device) == (0, 56 * ROW)
