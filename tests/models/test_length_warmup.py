"""Warm-up of models whose rows are padded: batches of several lengths run before requests do."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from tests.support.model_folders import Folders

RECORDS = """
SHAPES = []

class Model:
    def predict(self, inputs):
        x = inputs["x"]
        SHAPES.append(x.shape)
        assert (inputs["mask"].sum(axis=1) == inputs["sizes"]).all()
        {line}
        return {{"y": 2 * x}}
"""
OTHERS = "{name: mask, dtype: INT64, shape: [-1]}, {name: sizes, dtype: INT64, shape: []}"
OUTPUT = "[{name: y, dtype: FP32, shape: [-1], unpad: true}]"


def loaded(
    folders: Folders, more: str, line: str = "", shape: str = "[4]", **settings: Any
) -> CheckedModel:
    padded = f"pad: 0, mask: mask, lengths: sizes, warmup_shape: {shape}{more}"
    inputs = f"[{{name: x, dtype: FP32, shape: [-1], {padded}}}, {OTHERS}]"
    definition = folders.python(RECORDS.format(line=line), inputs=inputs, outputs=OUTPUT)
    return folders.load(definition, **settings)


def shapes(checked: CheckedModel) -> set[tuple[int, ...]]:
    model: Any = checked.model
    return set(model._model.predict.__globals__["SHAPES"])


def test_batches_of_all_sizes_run_at_each_length(folders: Folders) -> None:
    checked = loaded(folders, ", warmup_lengths: [2, 4, 16]")
    assert shapes(checked) == {(rows, length) for rows in (1, 2, 4) for length in (2, 4, 16)}
    assert set(checked.length_timings) == shapes(checked)
    assert sorted(checked.timings) == [1, 2, 4], "batches of warm-up's own length"
    assert checked.loaded().length_timings is checked.length_timings
    assert checked.copies_outputs is False


def test_without_lengths_to_run_the_sizes_run_that_batches_are_padded_to(
    folders: Folders,
) -> None:
    checked = loaded(folders, ", pad_sizes: [8, 32]", shape="[5]")
    assert {length for _, length in shapes(checked)} == {8, 32}


def test_no_batch_has_more_elements_than_the_setting_allows_but_for_a_row_alone(
    folders: Folders,
) -> None:
    checked = loaded(folders, ", warmup_lengths: [8, 64]", max_batch_elements=20)
    timed = {(1, 4), (2, 4), (4, 4), (1, 8), (2, 8), (1, 64)}
    assert shapes(checked) == {*timed, (2, 2)}, "and a batch of rows of different lengths"
    assert set(checked.length_timings) == timed


def test_a_length_ends_where_the_memory_does_and_limits_no_other_length(folders: Folders) -> None:
    line = 'if x.size > 40: raise MemoryError("full")'
    checked = loaded(folders, ", warmup_lengths: [16]", line)
    assert (4, 4) in shapes(checked)
    assert set(checked.length_timings) == {(1, 4), (2, 4), (4, 4), (1, 16), (2, 16)}
    assert checked.overflow_rows == 0
    (note,) = [text for text in folders.progress if text.startswith("note: ")]
    assert "4 rows of length 16 does not fit into the memory" in note
    assert "Set max_batch_elements lower" in note


def test_a_model_that_cannot_run_a_length_is_not_served(folders: Folders) -> None:
    line = 'if x.shape[1] > 10: raise ValueError("too long")'
    with pytest.raises(ModelLoadError, match=r"batch size 1 and length 16 failed.*too long"):
        loaded(folders, ", warmup_lengths: [16]", line)


def test_an_output_that_cannot_be_cut_to_the_lengths_of_rows_fails_the_load(
    folders: Folders,
) -> None:
    line = 'return {"y": x[:, ::2]}'
    with pytest.raises(
        ModelLoadError, match=r"`unpad` expects the length of the batch, 4, on axis 1"
    ):
        loaded(folders, "", line)


def padded_grid(folders: Folders, line: str, output: str, shape: str = "[6, 6]") -> CheckedModel:
    """Load a model of rows with two lengths, `line` of which returns the output `y`."""
    source = f"""
class Model:
    def predict(self, inputs):
        x, sizes = inputs["x"], inputs["sizes"]
        {line}
"""
    padded = f"pad: 0, lengths: sizes, warmup_shape: {shape}"
    inputs = (
        f"[{{name: x, dtype: FP32, shape: [-1, -1], {padded}}}, "
        "{name: sizes, dtype: INT64, shape: [2]}]"
    )
    definition = folders.python(source, inputs=inputs, outputs=f"[{{name: y, {output}}}]")
    return folders.load(definition)


UNPAD = "dtype: FP32, shape: [-1, -1], unpad: true"
RAGGED = "dtype: FP32, shape: [-1, -1], ragged: true"


@pytest.mark.parametrize(
    ("line", "output", "message"),
    [
        (
            'return {"y": x.transpose(0, 2, 1)}',
            UNPAD,
            r"the length of the batch, 3, on axis 1; got shape \[2,12,3\]: the lengths stand in "
            "another order.*; transpose the output",
        ),
        (
            'return {"y": np.zeros((len(x), 6, 6), "f4")}',
            UNPAD,
            r"the length of the batch, 3, on axis 1; got shape \[2,6,6\]$",
        ),
        (
            'return {"y": [row[:h, :w] for row, (h, w) in zip(x, sizes)]}',
            UNPAD,
            r"got rows of shapes \[2,5\], \[3,12\]: .* write `ragged: true` in place of `unpad",
        ),
        (
            'return {"y": x}',
            RAGGED,
            r"got \[3,12\] and \[6,6\] for the same row in batches of lengths 3 x 12 and 6 x 6: "
            "rows hold the padding.*, or write `unpad: true` in place of `ragged: true`$",
        ),
    ],
    ids=["transposed", "of one size", "cut by the model", "padded"],
)
def test_outputs_that_answer_alone_squares_without_padding_fail_the_load(
    folders: Folders, line: str, output: str, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        padded_grid(folders, line, output)


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ('return {"y": 2 * x}', UNPAD),
        ('return {"y": [row[:h, :w] for row, (h, w) in zip(x, sizes)]}', RAGGED),
        ('return {"y": np.zeros((len(x), 3, 12), "f4")}', RAGGED),
        ('return {"y": [row[: -(-h // 4), :1] for row, (h, _) in zip(x, sizes)]}', RAGGED),
    ],
    ids=["unpad", "cut by the model", "of a batch's size by chance", "of one size by chance"],
)
def test_outputs_of_each_row_alone_are_served(folders: Folders, line: str, output: str) -> None:
    assert padded_grid(folders, line, output).timings
    assert not [text for text in folders.progress if "may fail" in text]


def test_rows_whose_sizes_differ_between_batches_but_are_not_theirs_are_served_with_a_note(
    folders: Folders,
) -> None:
    padded_grid(folders, 'return {"y": [np.zeros((x.shape[1] + 1, 1)) for row in x]}', RAGGED)
    (note,) = [text for text in folders.progress if text.startswith("note: ")]
    assert "output 'y' may hold padding: got [4,1] and [7,1] for the same row in batches" in note


@pytest.mark.parametrize("least", [4, 8], ids=["the shorter row", "both rows"])
@pytest.mark.parametrize("output", [UNPAD, RAGGED])
def test_a_model_that_refuses_rows_by_their_lengths_is_served(
    folders: Folders, least: int, output: str
) -> None:
    refused = f"ValueError('too small') if h < {least} else row"
    line = f'return {{"y": [{refused} for row, (h, w) in zip(x, sizes)]}}'
    assert padded_grid(folders, line, output, shape="[8, 8]").timings


def test_a_model_that_takes_no_shorter_rows_is_served_with_a_note(folders: Folders) -> None:
    loaded(folders, "", 'if x.shape[1] < 4: raise ValueError("too short")')
    (note,) = [text for text in folders.progress if "may fail" in text]
    assert "rows of different lengths failed: ValueError: too short" in note


def test_rows_that_preprocess_makes_run_at_each_length(folders: Folders) -> None:
    source = """
SHAPES = []

class Model:
    def preprocess(self, inputs):
        return {"ids": np.ones((len(inputs["text"]), 3), "i8")}

    def predict(self, inputs):
        SHAPES.append(inputs["ids"].shape)
        assert inputs["ids"].all()
        return {"y": inputs["ids"].sum(axis=1)}
"""
    prepared = "[{name: ids, dtype: INT64, shape: [-1], pad: 0, warmup_lengths: [2, 9]}]"
    checked = folders.load(
        folders.python(
            source,
            head=f"\nprepared: {prepared}",
            inputs="[{name: text, dtype: BYTES, shape: []}]",
            outputs="[{name: y, dtype: INT64, shape: []}]",
        )
    )
    assert {length for _, length in shapes(checked)} == {2, 3, 9}


CLOCK = [0.0]
TEXTS = """
from tests.models.test_length_warmup import CLOCK

class Model:
    sample = {{"text": ["abc", "a", "abcdefabcdef", "ab"]}}

    def preprocess(self, inputs):
        longest = max(len(text) for text in inputs["text"])
        return {{"ids": np.ones((len(inputs["text"]), longest), "i8")}}

    def predict(self, inputs):
        ids = inputs["ids"]
        CLOCK[0] += ids.size * {seconds}
        return {{"y": ids.sum(axis=1)}}
"""


@pytest.mark.parametrize(
    ("seconds", "most"),
    [("0.02", 8), ("(0.02 if len(ids) <= 2 else 0.1)", 2)],
    ids=["longer rows", "rows of larger batches"],
)
def test_rows_of_a_sample_that_are_longer_limit_no_batch(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, seconds: str, most: int
) -> None:
    monkeypatch.setattr("batcher.models.warmup.perf_counter", lambda: CLOCK[0])
    definition = folders.python(
        TEXTS.format(seconds=seconds),
        head="\nprepared: [{name: ids, dtype: INT64, shape: [-1], pad: 0}]",
        inputs="[{name: text, dtype: BYTES, shape: []}]",
        outputs="[{name: y, dtype: INT64, shape: []}]",
    )
    assert folders.load(definition, max_batch_size=8).largest(8) == most
