"""Blank rows behind hooks: a row may become many, which `postprocess` folds back."""

from __future__ import annotations

import pytest

from batcher.errors import ModelLoadError
from tests.support.model_folders import Folders

CLIPS = "[{name: audio, dtype: FP32, shape: [-1], warmup_shape: [40]}]"
ENERGY = "[{name: energy, dtype: FP32, shape: []}]"
WINDOWS = """
SIZES = []

class Model:
    def preprocess(self, values):
        return {"frames": values["audio"].reshape(-1, 4)}

    def predict(self, values):
        SIZES.append(len(values["frames"]))
        return {"energy": values["frames"].mean(axis=1)}
"""


def folding(body: str) -> str:
    """Return the windowed model with a `postprocess`."""
    return f"{WINDOWS}\n    def postprocess(self, outputs):\n        {body}\n"


def sizes(folders: Folders, source: str, largest: int) -> list[int]:
    """Return the rows of the batches of warm-up, each size once."""
    definition = folders.python(source, inputs=CLIPS, outputs=ENERGY)
    loaded = folders.load(definition, max_batch_size=largest)
    ran = loaded.model._model.predict.__globals__["SIZES"]  # type: ignore[attr-defined]
    return list(dict.fromkeys(ran))


def test_warmup_counts_the_rows_that_the_model_computes(folders: Folders) -> None:
    assert sizes(folders, WINDOWS, 32) == [1, 2, 4, 8, 16, 32]


def test_rows_that_are_folded_back_pass_warmup(folders: Folders) -> None:
    source = folding('return {"energy": outputs["energy"].reshape(-1, 10).mean(axis=1)}')
    assert sizes(folders, source, 16) == [1, 2, 4, 8, 16]


def test_rows_that_are_not_folded_back_pass_warmup(folders: Folders) -> None:
    assert sizes(folders, folding("return outputs"), 16) == [1, 2, 4, 8, 16]


def test_a_row_that_becomes_more_rows_than_a_batch_has_is_tried_whole(folders: Folders) -> None:
    source = folding('return {"energy": outputs["energy"].reshape(-1, 10).mean(axis=1)}')
    assert sizes(folders, source, 4) == [1, 2, 4]
    with pytest.raises(
        ModelLoadError,
        match=r"warm-up with batch size 10 failed: .*expected 1 rows, as the request has, or 10, "
        r"as preprocess has made of them; got 2 in output 'energy'",
    ):
        sizes(folders, folding('return {"energy": outputs["energy"][:2]}'), 4)


def test_rows_that_are_folded_wrongly_are_named_with_both_numbers(folders: Folders) -> None:
    source = folding('return {"energy": outputs["energy"].reshape(-1, 5).mean(axis=1)}')
    with pytest.raises(
        ModelLoadError, match=r"expected 1 rows, as the request has, or 10, .*; got 2 in output"
    ):
        sizes(folders, source, 16)


CUTS_TEXTS = """
class Model:
    def preprocess(self, inputs):
        parts = [part for text in inputs["text"] for part in text.split(b".") if part]
        {also}
        return {{"length": np.array([len(part) for part in parts], np.float32)}}

    def predict(self, values):
        return {{"energy": values["length"]}}

    def postprocess(self, outputs):
        return {{"energy": outputs["energy"].sum(keepdims=True)}}
"""
TEXTS = "[{name: text, dtype: BYTES, shape: []}]"


@pytest.mark.parametrize(
    "also",
    [
        "",
        "np.stack([np.frombuffer(part, np.uint8)[:3] for part in parts])",
        "assert len(parts), 'no text'",
    ],
    ids=["makes no rows", "raises an error of a library", "raises an error of its own"],
)
def test_a_hook_that_takes_no_empty_text_is_warmed_up_with_another(
    folders: Folders, also: str
) -> None:
    source = CUTS_TEXTS.format(also=also)
    folders.load(folders.python(source, inputs=TEXTS, outputs=ENERGY), max_batch_size=16)
    assert folders.progress[-1] == "warming up, batch size 16"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return {'frames': values['audio'][:0]}", "preprocess makes no rows of blank ones"),
        ("raise InvalidInput('silence')", "preprocess refuses blank rows: silence"),
    ],
)
def test_a_hook_that_makes_no_rows_of_blank_ones_is_served_without_a_warmup(
    folders: Folders, body: str, reason: str
) -> None:
    source = f"""
from batcher.errors import InvalidInput

class Model:
    def preprocess(self, values):
        {body}

    def predict(self, values):
        return {{"energy": values["frames"].mean(axis=1)}}
"""
    folders.load(folders.python(source, inputs=CLIPS, outputs=ENERGY))
    assert folders.progress[-1] == f"warm-up skipped: {reason}"


def test_rows_are_folded_back_one_request_at_a_time(folders: Folders) -> None:
    source = folding('return {"energy": outputs["energy"].mean(keepdims=True)}')
    assert sizes(folders, source, 32) == [1, 2, 4, 8, 16, 32]


def test_what_is_no_row_for_postprocess_fails_the_load(folders: Folders) -> None:
    source = """
class Model:
    def predict(self, values):
        return {"y": values["x"], "found": [{"a": 1} for _ in values["x"]]}

    def postprocess(self, outputs):
        return outputs
"""
    with pytest.raises(ModelLoadError, match="'found', row 0: expected numbers or texts; got dict"):
        folders.load(folders.python(source))
