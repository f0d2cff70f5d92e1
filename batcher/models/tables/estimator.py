"""What an estimator of scikit-learn says of itself: its columns, and the methods that answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from batcher.core.spec import Array

METHODS: tuple[str, ...] = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
    "score_samples",
)
"""The methods of an estimator that may be outputs; each takes the table alone."""

SOME_TEXT = "an example"
"""A text for columns of which the estimator knows none."""

MANY = 64
"""Columns from which one input holds them all, if they are all numbers: a request names each input.
"""


class Column(NamedTuple):
    """A column of the table that an estimator takes.

    Attributes:
        name: its name.
        example: a text that the estimator knows; None for a column of numbers.
    """

    name: str
    example: str | None = None


def methods_of(model: Any) -> list[str]:
    """Return which METHODS the object has; none for an object that is no estimator."""
    return [name for name in METHODS if callable(getattr(model, name, None))]


def answering(model: Any) -> list[str]:
    """Return the methods that a client mostly wants: what it predicts, else what it makes."""
    have = methods_of(model)
    wanted = [name for name in have if name in ("predict", "predict_proba")]
    return wanted or [name for name in have if name in ("transform", "score_samples")][:1]


def column_names(model: Any) -> list[str]:
    """Return the names of the columns that the estimator has learnt from; empty if unknown."""
    names = getattr(model, "feature_names_in_", None)
    return [] if names is None else [str(name) for name in names]


def width_of(model: Any) -> int | None:
    """Return how many columns the estimator takes; None if it takes no table, or does not know."""
    width = getattr(model, "n_features_in_", None)
    return None if width is None else int(width)


def takes_texts(model: Any) -> bool:
    """Return whether the estimator takes a list of texts, as vectorizers do.

    A vectorizer says so itself; of a pipeline the first step does.
    """
    steps = getattr(model, "steps", None)
    if steps:
        return takes_texts(steps[0][1])
    return width_of(model) is None and callable(getattr(model, "build_analyzer", None))


def columns_of(model: Any) -> list[Column]:
    """Return the columns that the estimator takes; empty if it does not know their names."""
    names = column_names(model)
    texts = known_texts(model, names)
    return [Column(name, texts.get(name)) for name in names]


def known_texts(model: Any, names: Sequence[str]) -> dict[str, str]:
    """Return a text that the estimator knows for each column of text, of the columns `names`."""
    return dict(_texts(model, names))


def classes_of(model: Any) -> Array | None:
    """Return the classes of a classifier in the order of its probabilities; None for others."""
    try:
        classes = model.classes_
    except Exception:  # a property that raises for what is no classifier
        return None
    return classes if isinstance(classes, np.ndarray) and classes.ndim == 1 else None


def plain(value: Any) -> Any:
    """Return what a method gave as an array, where it is a sparse matrix, a table, or a list."""
    if hasattr(value, "toarray"):
        return value.toarray()
    if hasattr(value, "to_numpy"):
        return value.to_numpy()
    # Of several targets the probabilities are a list of arrays, one for each target.
    if isinstance(value, list) and len({np.shape(each) for each in value}) == 1:
        return np.stack([np.asarray(each) for each in value], axis=1)
    return value


def _texts(model: Any, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the columns that hold text, each with a text that the estimator knows."""
    for step in _steps(model):
        for _, transformer, columns in getattr(step, "transformers_", ()):
            chosen = _chosen(columns, names)
            if isinstance(columns, str) and takes_texts(transformer):
                yield columns, SOME_TEXT
            yield from zip(chosen, _examples(transformer, len(chosen)), strict=False)
        categories = _text_categories(step)
        if categories and len(categories) == len(names):
            yield from ((name, text) for name, text in zip(names, categories, strict=True) if text)


def _steps(model: Any) -> Iterator[Any]:
    """Yield the estimator, or each step of a pipeline."""
    steps = getattr(model, "steps", None)
    yield from [step for _, step in steps] if steps else [model]


def _chosen(columns: Any, names: Sequence[str]) -> list[str]:
    """Return the names of the columns that a transformer of a table gets."""
    if isinstance(columns, str | int):
        columns = [columns]
    if isinstance(columns, slice):
        by_name = isinstance(columns.start, str) or isinstance(columns.stop, str)
        return [] if by_name else list(names[columns])
    listed = np.asarray(columns)
    if listed.dtype == bool:
        return [name for name, is_chosen in zip(names, listed, strict=False) if is_chosen]
    return [
        name if isinstance(name, str) else names[name]
        for name in listed.tolist()
        if isinstance(name, str) or name < len(names)
    ]


def _examples(transformer: Any, count: int) -> list[str]:
    """Return a known text for each column of a transformer that takes text; else nothing."""
    for step in _steps(transformer):
        texts = _text_categories(step)
        if len(texts) == count and all(texts):
            return texts
        fill: Array | None = getattr(step, "statistics_", None)
        if fill is not None and len(fill) == count and all(isinstance(each, str) for each in fill):
            return [str(each) for each in fill]
    return []


def _text_categories(step: Any) -> list[str]:
    """Return the first text that an encoder knows of each column; empty for a column of numbers."""
    return [
        next((each for each in categories.tolist() if isinstance(each, str) and each), "")
        for categories in getattr(step, "categories_", ())
        if hasattr(categories, "tolist")
    ]
