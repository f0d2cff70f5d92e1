"""What a model gives for a frame, and how a model of PMML becomes a function of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import Function, unsupported
from batcher.models.pmml.frame import Derived, Frame, full


@dataclass(slots=True)
class Result:
    """What a model gives for each row.

    Attributes:
        value: a number, or the label of a class or a cluster as text; NaN or None without one.
        scores: of a classifier a probability of each class, in the order of the file's classes.
        entity: the name of what has given the value, such as a cluster or a node.
    """

    value: Array
    scores: Array | None = None
    entity: Array | None = None


Scorer = Callable[[Frame], Result]


class File(NamedTuple):
    """What the parts of a file share.

    Attributes:
        functions: functions that the file defines.
        classes: names of the classes of a classifier; empty for other models.
        derived: the fields of the file's transformations.
    """

    functions: Mapping[str, Function]
    classes: tuple[str, ...]
    derived: Mapping[str, Derived]

    def place(self, element: Element, name: str) -> int:
        """Return the place of a class that `element` names. Raises ModelLoadError: it is none."""
        if name not in self.classes:
            classes = ", ".join(self.classes)
            raise unsupported(element, f"{name!r:.60}, which is no class of the target: {classes}")
        return self.classes.index(name)


def of_scores(scores: Array, classes: tuple[str, ...]) -> Result:
    """Return the result of a classifier: the class with the best score, the first of equal ones."""
    names = np.array(classes, object)
    lack = np.isnan(scores).any(axis=1) if scores.size else np.zeros(len(scores), bool)
    value = names[np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)]
    value[lack] = None
    return Result(value, scores)


def of_labels(labels: Array, classes: tuple[str, ...]) -> Result:
    """Return the result of a classifier that gives labels alone: their probability is 1."""
    scores = np.zeros((len(labels), len(classes)))
    for place, name in enumerate(classes):
        scores[:, place] = [label == name for label in labels]
    scores[[label is None for label in labels]] = np.nan
    return Result(labels, scores)


def empty(frame: Frame, classes: tuple[str, ...]) -> Result:
    """Return a result in which everything is missing."""
    if classes:
        return Result(full(frame.rows, None), np.full((frame.rows, len(classes)), np.nan))
    return Result(np.full(frame.rows, np.nan))


def without(result: Result, lack: Array) -> Result:
    """Return `result` without what it says of the rows that `lack` an answer."""
    result.value[lack] = None if result.value.dtype.hasobject else np.nan
    if result.scores is not None:
        result.scores[lack] = np.nan
    return result
