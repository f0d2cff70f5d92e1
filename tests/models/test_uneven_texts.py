"""A request of a short and a long text is tried before a model serves, and told if that fails."""

from __future__ import annotations

import re

import pytest

from tests.support.model_folders import Folders

TEXTS = "[{name: text, dtype: BYTES, shape: []}]"
COUNTS = "[{name: count, dtype: FP32, shape: []}]"
MODEL = """
class Model:
    def preprocess(self, inputs):
        rows = [list(text) for text in inputs["text"]]
        return {"ids": ROWS}

    def predict(self, values):
        return {"count": values["ids"].astype(np.float32).sum(axis=1)}
"""


def notes(folders: Folders, rows: str) -> list[str]:
    """Return what is told of a model whose `preprocess` returns `rows`, besides its steps."""
    source = MODEL.replace("ROWS", rows)
    folders.load(folders.python(source, inputs=TEXTS, outputs=COUNTS))
    return [text for text in folders.progress if text.startswith("note")]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("rows", "'ids': expected rows of one shape; got rows of unequal lengths: pad them"),
        ("np.array(rows)", "inhomogeneous .* preprocess may return a list of rows"),
    ],
)
def test_texts_of_unequal_lengths_that_fail_together_are_told(
    folders: Folders, rows: str, words: str
) -> None:
    [note] = notes(folders, rows)
    assert re.search(f"one of a short and a long text together fails: .*{words}", note)


@pytest.mark.parametrize(
    "rows",
    [
        "np.array([row[:1] for row in rows])",
        "np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])",
        "np.array([[1 // (len(row) < 9)] for row in rows])",
        "[exit(1) if len(row) > 8 else row for row in rows]",
    ],
)
def test_a_model_that_pads_or_refuses_long_texts_is_told_nothing(
    folders: Folders, rows: str
) -> None:
    assert notes(folders, rows) == []
