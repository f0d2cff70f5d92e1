"""Warm-up, and what a model's answers must keep to."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.spec import Array
from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.warmup import warm_up, warmup_sizes
from tests.support.model_folders import Folders, answers, floats
from tests.support.models import RecordingModel, model_spec, tensor

TWO_OUTPUTS = model_spec(outputs=(tensor("y"), tensor("z", "INT64", ())))
FREE = "[{name: x, dtype: FP32, shape: [-1, 2]}]"
FREE_OUT = "[{name: y, dtype: FP32, shape: [-1, 2]}]"
RECORDS = """
SHAPES = []

class Model:
    def predict(self, inputs):
        SHAPES.append(inputs["x"].shape)
        return {"y": inputs["x"] * 2}
"""


HELD = """
import gc
import weakref

import numpy as np

MADE = []
PEAKS = []

class Model:
    def predict(self, inputs):
        gc.collect()
        y = np.zeros((len(inputs["x"]), 4), "f4")
        MADE.append(weakref.ref(y))
        PEAKS.append(sum(len(output()) for output in MADE if output() is not None))
        return {"y": y}
"""


def predicting(body: str) -> str:
    """Return the source of a model whose `predict` is `body`, with the input as `x`."""
    return (
        f'STATE = {{}}\n\nclass Model:\n    def predict(self, inputs):\n        x = inputs["x"]\n  '
        f"      {body}\n"
    )


def shapes(checked: CheckedModel) -> list[tuple[int, ...]]:
    """Return what a RECORDS model was given."""
    model: Any = checked.model
    found: list[tuple[int, ...]] = model._model.predict.__globals__["SHAPES"]
    return found


@given(st.integers(1, 5000))
def test_warmup_sizes_ascend_from_one_to_the_largest_batch_by_powers_of_two(largest: int) -> None:
    sizes = warmup_sizes(largest)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, largest)
    assert all(size & (size - 1) == 0 for size in sizes[:-1])
    assert all(later <= 2 * earlier for earlier, later in pairwise(sizes))


def test_a_model_is_run_at_every_warmup_size_before_it_is_ready(folders: Folders) -> None:
    checked = folders.load(folders.python(RECORDS), max_batch_size=6)
    assert {shape[0] for shape in shapes(checked)} == {1, 2, 4, 6}
    assert folders.progress[0] == "loading"
    assert [text for text in folders.progress if "batch size 6" in text]


def test_warmup_holds_the_outputs_of_two_batches_of_the_largest_size_at_most(
    folders: Folders,
) -> None:
    checked = folders.load(folders.python(HELD), max_batch_size=64)
    model: Any = checked.model
    assert max(model._model.predict.__globals__["PEAKS"]) == 2 * 64


@pytest.mark.parametrize(("largest", "overflow"), [(20, 20), (64, 32)])
def test_a_warmup_that_finds_the_memory_full_goes_on_with_the_size_that_fits(
    folders: Folders, largest: int, overflow: int
) -> None:
    body = 'if len(x) > 17:\n            raise MemoryError("full")\n        return {"y": x}'
    checked = folders.load(folders.python(predicting(body)), max_batch_size=largest)
    assert checked.loaded().overflow_rows == overflow
    assert list(checked.timings) == [1, 2, 4, 8, 16]
    (note,) = [text for text in folders.progress if text.startswith("note: ")]
    place = re.escape(str(folders.base / "m/1/code.py"))
    assert re.search(
        rf"a batch of {overflow} rows does not fit .*\(MemoryError: full \({place}:\d+\)\)", note
    )
    assert "set max_batch_size to 16" in note
    assert checked.copies_outputs is False


@pytest.mark.parametrize(
    ("line", "is_advised"),
    [
        ('raise ValueError("one at a time")', True),
        ("int(np.zeros(2))", True),
        ("torch.zeros(2).item()", True),
        ('return {"y": x[:1]}', True),
        ('x + "1"', False),
        ("x.colour", False),
        ("colour", False),
        ('inputs["colour"]', False),
        ("import colour", False),
        ('return {"y": x.astype("c8")}', False),
        ('return {"y": x[:, :3]}', False),
    ],
)
def test_smaller_batches_are_advised_where_they_may_help(
    folders: Folders, line: str, is_advised: bool
) -> None:
    body = f'if len(x) > 1:\n            {line}\n        return {{"y": x}}'
    with pytest.raises(ModelLoadError, match="warm-up with batch size 2 failed") as failed:
        folders.load(folders.python(predicting(body)))
    assert ("set max_batch_size to 1" in str(failed.value)) is is_advised


def test_a_single_row_that_does_not_fit_into_the_memory_fails_the_load(folders: Folders) -> None:
    body = 'raise MemoryError("full")'
    with pytest.raises(ModelLoadError, match=r"one row does not fit into the memory: .*full"):
        folders.load(folders.python(predicting(body)))


class Costs:
    """A clock, and a model whose batches cost what `seconds` says by their rows."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.model = CheckedModel(RecordingModel(predict=self._predict))
        self.progress: list[str] = []

    def _predict(self, inputs: Any) -> dict[str, Array]:
        self.now += self.seconds[len(inputs["x"])]
        return {"y": inputs["x"] * 2}

    def warm_up(self, monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
        monkeypatch.setattr("batcher.models.warmup.perf_counter", lambda: self.now)
        warm_up(self.model, largest, self.progress.append)

    @property
    def notes(self) -> list[str]:
        return [text for text in self.progress if text.startswith("note: ")]


@pytest.mark.parametrize(
    ("seconds", "most", "tried"),
    [
        ({1: 0.2, 2: 0.3, 4: 0.5, 8: 1.6, 16: 9.0}, 4, 8),
        ({1: 0.2, 2: 0.44, 4: 0.96, 8: 2.4, 16: 9.0}, 4, 8),
        ({1: 1.0, 2: 3.0, 4: 9.0, 8: 27.0, 16: 81.0}, 1, 2),
        ({1: 0.01, 2: 0.04, 4: 0.16, 8: 0.64, 16: 2.56}, 1, 8),
    ],
)
def test_warmup_ends_where_a_row_costs_more_in_larger_batches(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], most: int, tried: int
) -> None:
    costs = Costs(seconds)
    costs.warm_up(monkeypatch, 16)
    assert costs.model.loaded().max_rows == costs.model.largest(16) == most
    assert max(costs.model.timings) == tried
    (note,) = costs.notes
    assert f"at most {most} rows, since a row costs more in larger ones" in note
    assert f"Set max_batch_size to {most}" in note


@pytest.mark.parametrize(
    "seconds",
    [
        {1: 0.3, 2: 0.6, 4: 1.2, 8: 2.4, 16: 4.8},
        {1: 0.3, 2: 0.3, 4: 0.3, 8: 0.35, 16: 0.6},
        {1: 0.001, 2: 0.008, 4: 0.03, 8: 0.1, 16: 0.2},
    ],
    ids=["a row costs the same", "large batches are cheaper", "all batches are quick"],
)
def test_warmup_tries_every_size_where_no_row_costs_more(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]
) -> None:
    costs = Costs(seconds)
    costs.warm_up(monkeypatch, 16)
    assert (costs.model.loaded().max_rows, max(costs.model.timings)) == (None, 16)
    assert costs.notes == []


def test_a_machine_that_became_busy_meanwhile_ends_no_warmup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = Costs({1: 0.4, 2: 0.8, 4: 0.0, 8: 0.0})

    class Busier(dict[int, float]):
        def __getitem__(self, rows: int) -> float:
            if rows == 4:
                costs.seconds = {1: 0.8, 2: 1.6, 4: 3.2, 8: 6.4}
            return costs.seconds[rows] if rows == 4 else super().__getitem__(rows)

    costs.seconds = Busier(costs.seconds)
    costs.warm_up(monkeypatch, 8)
    assert max(costs.model.timings) == 8
    assert costs.notes == []


def test_warmup_of_costly_batches_shows_each_size_and_what_the_last_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = Costs({1: 0.6, 2: 1.2, 4: 2.4})
    costs.warm_up(monkeypatch, 4)
    assert costs.progress == [
        "warming up, batch size 1",
        "warming up, batch size 2",
        "warming up with 4 rows; a batch of 2 rows took 1.2 s",
    ]


def test_a_model_is_not_run_where_warmup_is_switched_off(folders: Folders) -> None:
    checked = folders.load(folders.python(RECORDS), warmup=False)
    assert shapes(checked) == []
    assert folders.progress == ["loading"]


def test_free_axes_without_a_warmup_shape_are_passed_over_with_a_line_that_says_so(
    folders: Folders,
) -> None:
    checked = folders.load(folders.python(RECORDS, inputs=FREE, outputs=FREE_OUT))
    assert shapes(checked) == []
    assert folders.progress[1:] == [
        "warm-up skipped: no sample, and no warmup_shape for the free axes of x"
    ]


def test_free_axes_with_a_warmup_shape_are_warmed_up_in_that_size(folders: Folders) -> None:
    inputs = "[{name: x, dtype: FP32, shape: [-1, 2], warmup_shape: [7, 2]}]"
    checked = folders.load(
        folders.python(RECORDS, inputs=inputs, outputs=FREE_OUT), max_batch_size=2
    )
    assert set(shapes(checked)) == {(1, 7, 2), (2, 7, 2)}


@pytest.mark.parametrize(
    ("body", "size", "complaint"),
    [
        ('return {"y": x} if len(x) < 2 else 1 / 0', 2, "ZeroDivisionError"),
        ('assert len(x) < 3, "too many"; return {"y": x}', 4, "AssertionError: too many"),
        ('return {"y": x[:1]}', 2, "2 rows in, 1 rows out in output 'y'"),
        ('return {"z": x}', 1, "expected output 'y'; got 'z'"),
        ('return {"y": x.astype("c8")}', 1, r"expected FP32\[-1,4\]; got complex64\[1,4\]"),
        ('return {"y": x[:, :3]}', 1, r"expected FP32\[-1,4\]; got FP32\[1,3\]"),
        ("return x, x", 1, "expected 1 outputs; got 2"),
        ('return {"y": x.sum()}', 1, "1 rows in, a scalar"),
        ("return None", 1, "expected outputs; got None: return a dict such as {'y': …}"),
        ('return {"y": None}', 1, "output 'y'"),
        ('return {"y": "text"}', 1, "output 'y'"),
    ],
)
def test_a_warmup_that_fails_tells_the_model_the_batch_size_and_the_reason(
    folders: Folders, body: str, size: int, complaint: str
) -> None:
    with pytest.raises(
        ModelLoadError,
        match=rf"^model 'm' version 1: warm-up with batch size {size} failed: .*{complaint}",
    ):
        folders.load(folders.python(predicting(body)))


@pytest.mark.parametrize(
    ("given_outputs", "complaint"),
    [
        ({"z": np.zeros(3, "<i8")}, "expected output 'y'; got 'z'"),
        ({"y": floats(2), "z": np.zeros(3, "<i8")}, "3 rows in, 2 rows out in output 'y'"),
        ({"y": floats(4), "z": np.zeros(3, "<i8")}, "3 rows in, 4 rows out in output 'y'"),
        ({"y": floats(3), "z": np.array(0, "<i8")}, "3 rows in, a scalar.* in output 'z'"),
        (
            {"y": floats(3), "z": np.zeros(3, "<f4")},
            r"output 'z': expected INT64\[-1\]; got FP32\[3\]",
        ),
        (
            {"y": floats(3, 5), "z": np.zeros(3, "<i8")},
            r"output 'y': expected FP32\[-1,4\]; got FP32\[3,5\]",
        ),
    ],
)
def test_an_answer_that_breaks_the_contract_fails_its_batch_with_both_numbers(
    given_outputs: dict[str, Array], complaint: str
) -> None:
    checked = CheckedModel(RecordingModel(TWO_OUTPUTS, lambda inputs: given_outputs))
    with pytest.raises(ModelContractError, match=complaint):
        answers(checked, x=floats(3))


@pytest.mark.parametrize("outputs", [{"raw": floats(2)}, {"raw": np.array(1.0)}])
def test_with_a_postprocess_the_rows_are_checked_and_the_rest_is_left_to_it(
    outputs: dict[str, Array],
) -> None:
    model = RecordingModel(predict=lambda inputs: outputs)
    model.postprocess = lambda raw: {"y": raw["raw"]}
    with pytest.raises(
        ModelContractError, match=r"3 rows in, .* rows out in output 'raw'|a scalar"
    ):
        answers(CheckedModel(model), x=floats(3))


def test_with_a_postprocess_other_names_and_dtypes_may_come_out(folders: Folders) -> None:
    source = (
        predicting('return {"raw": x.astype("f8")}')
        + "\n    def postprocess(self, outputs):"
        + '\n        return {"y": outputs["raw"].astype("f4")}\n'
    )
    found = answers(folders.load(folders.python(source)), x=floats())
    assert list(found) == ["raw"]


def test_hooks_are_warmed_up_with_the_model_and_checked(folders: Folders) -> None:
    wrong = (
        predicting('return {"y": x}')
        + '\n    def postprocess(self, outputs):\n        return {"y": outputs["y"].astype("c8")}\n'
    )
    with pytest.raises(
        ModelLoadError,
        match=r"warm-up with batch size 1 failed: .*expected FP32\[-1,4\]; got complex64\[1,4\]",
    ):
        folders.load(folders.python(wrong))
    failing = (
        predicting('return {"y": x}')
        + '\n    def preprocess(self, inputs):\n        raise KeyError("vocabulary")\n'
    )
    with pytest.raises(
        ModelLoadError, match="warm-up with batch size 1 failed: KeyError: 'vocabulary'"
    ):
        folders.load(folders.python(failing, name="n"))


SHARES = [
    pytest.param(
        'out = STATE.setdefault("out", np.zeros((64, 4), "f4"))[: len(x)]; out[...] = x; return '
        '{"y": out}',
        id="one buffer",
    ),
    pytest.param(
        'out = STATE.setdefault(len(x), np.zeros((len(x), 4), "f4")); out[...] = x; return {"y": '
        "out}",
        id="one a size",
    ),
    pytest.param(
        'out = STATE.setdefault("out", torch.zeros(64, 4))[: len(x)]; '
        'out.copy_(torch.from_numpy(x)); return {"y": out}',
        id="a tensor",
    ),
    pytest.param(
        'STATE["n"] = 1 - STATE.get("n", 0); '
        'out = STATE.setdefault(("out", STATE["n"]), np.zeros((64, 4), "f4"))[: len(x)]; out[...] '
        '= x; return {"y": out}',
        id="two buffers in turn",
    ),
]


@pytest.mark.parametrize("body", SHARES)
@pytest.mark.parametrize("warmup", [True, False])
def test_answers_in_memory_that_the_model_uses_again_are_copied(
    folders: Folders, body: str, warmup: bool
) -> None:
    checked = folders.load(folders.python(predicting(body)), warmup=warmup)
    first = answers(checked, x=floats())["y"]
    kept = first.copy()
    for _ in range(2):
        answers(checked, x=floats() + 100)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "body",
    [
        'return {"y": x * 2}',
        'return {"y": x}',
        'return {"y": torch.from_numpy(x) * 2}',
        'return {"y": x.copy()}',
    ],
)
def test_answers_in_fresh_memory_are_not_copied(folders: Folders, body: str) -> None:
    assert folders.load(folders.python(predicting(body))).copies_outputs is False


@pytest.mark.parametrize(
    "write", ["STATE['out'][: len(x)] = x", "np.multiply(x, 2, out=STATE['out'][: len(x)])"]
)
def test_answers_are_copied_where_some_batches_alone_write_into_what_is_kept(
    folders: Folders, write: str
) -> None:
    # Rows of warm-up are zeros, and go the other way.
    body = f"if x.any(): {write}; return {{'y': STATE['out'][: len(x)]}}\n        return {{'y': x}}"
    assert folders.load(folders.python(predicting(body))).copies_outputs is True


def test_answers_are_copied_as_long_as_nothing_is_known_of_the_model(folders: Folders) -> None:
    assert (
        folders.load(folders.python(predicting('return {"y": x * 2}')), warmup=False).copies_outputs
        is True
    )
    free = folders.python(predicting('return {"y": x * 2}'), inputs=FREE, outputs=FREE_OUT)
    assert folders.load(free).copies_outputs is True


def test_a_model_that_writes_into_its_input_changes_no_answer_of_another_batch(
    folders: Folders,
) -> None:
    checked = folders.load(folders.python(predicting('x *= 2; return {"y": x}')))
    first = answers(checked, x=floats())["y"]
    np.testing.assert_array_equal(answers(checked, x=floats())["y"], first)
    np.testing.assert_array_equal(first, floats() * 2)


@pytest.mark.parametrize(
    ("inputs", "blank"),
    [
        ("[{name: x, dtype: BYTES, shape: [2]}]", "b''"),
        ("[{name: x, dtype: BOOL, shape: []}]", "np.False_"),
        ("[{name: x, dtype: INT8, shape: [2, 2]}]", "0"),
        ("[{name: x, dtype: FP64, shape: []}]", "0.0"),
    ],
)
def test_warmup_gives_rows_of_every_datatype(folders: Folders, inputs: str, blank: str) -> None:
    source = predicting(f'assert (x == {blank}).all(); return {{"y": np.zeros((len(x), 4), "f4")}}')
    folders.load(folders.python(source, inputs=inputs))


def test_loading_is_imported_without_pytorch() -> None:
    """A server of ONNX models alone needs no PyTorch; a child that waits takes little memory."""
    code = "import sys, batcher.models.loading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failure_names_what_it_was_raised_from(folders: Folders) -> None:
    """Libraries that import late hide the reason behind an error of their own."""
    raises = (
        "    try:\n        import not_there_at_all\n    except ImportError as err:\n"
        "        raise RuntimeError('could not import it') from err\n"
    )
    source = f"class Model:\n  def load(self, device):\n{raises}  def predict(self, inputs): ...\n"
    expected = (
        r"RuntimeError: could not import it; the cause is ModuleNotFoundError: No module named "
        r"'not_there_at_all' \("
    )
    with pytest.raises(ModelLoadError, match=expected):
        folders.load(folders.python(source))


def test_a_failure_names_files_that_git_lfs_has_not_fetched(folders: Folders) -> None:
    source = "class Model:\n    def load(self, device):\n        1 / 0\n\n    predict = None\n"
    files = {"net/w.bin": "version https://git-lfs.github.com/spec/v1\n"}
    with pytest.raises(ModelLoadError, match=r"w\.bin: expected the file; got .* `git lfs pull`"):
        folders.load(folders.python(source, files=files))


def test_a_failure_names_the_version_of_the_model(folders: Folders) -> None:
    with pytest.raises(ModelLoadError, match=r"^model 'digits' version 12: warm-up"):
        folders.load(folders.python(predicting("return None"), name="digits", version="12"))


@pytest.mark.parametrize("setting", [{"device": "cpu"}, {"device": "auto"}])
def test_a_model_that_needs_no_device_loads_wherever_it_is_asked_to(
    folders: Folders, setting: dict[str, Any]
) -> None:
    np.testing.assert_array_equal(
        answers(folders.load(folders.python(RECORDS), **setting), x=floats())["y"], floats() * 2
    )


def test_a_postprocess_that_writes_into_the_memory_of_its_model_changes_it_in_no_warmup(
    folders: Folders,
) -> None:
    source = """
TABLE = np.ones((8, 4), np.float32)

class Model:
    def predict(self, inputs):
        return TABLE[: len(inputs["x"])]

    def postprocess(self, outputs):
        outputs["y"] += 1
        return outputs
"""
    checked = folders.load(folders.python(source))
    assert answers(checked, x=floats())["y"].max() == 1
