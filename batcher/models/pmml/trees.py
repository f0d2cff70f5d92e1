"""TreeModel: rows go down from node to node, all rows that are in a node at once.

a value is missing         missingValueStrategy
none, nullPrediction,      the next child is tried; no prediction; that of the node; the child
lastPrediction,            that the node names
defaultChild
no child holds             noTrueChildStrategy: no prediction, or that of the node
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import unsupported
from batcher.models.pmml.frame import Frame, full
from batcher.models.pmml.predicates import Predicate, predicate_in
from batcher.models.pmml.scoring import File, Result, Scorer, of_scores

_MISSING = ("none", "nullPrediction", "lastPrediction", "defaultChild")


class _Node:
    """A node with its children, and the number of its prediction; -1 where it has none."""

    __slots__ = ("children", "default", "holds", "identity", "prediction")

    def __init__(self, element: Element, predictions: list[Element]) -> None:
        if embedded := element.all("Regression", "DecisionTree"):
            raise unsupported(embedded[0])
        self.holds: Predicate = predicate_in(element)
        self.identity = element.get("id")
        self.default = element.get("defaultChild")
        self.children: list[_Node] = []
        self.prediction = -1
        if "score" in element.attributes or element.find("ScoreDistribution") is not None:
            self.prediction = len(predictions)
            predictions.append(element)


def tree(model: Element, file: File) -> Scorer:
    """Return the scorer of a TreeModel."""
    strategy = model.get("missingValueStrategy", "none")
    if strategy not in _MISSING:
        raise unsupported(model, f"missingValueStrategy {strategy}")
    predictions: list[Element] = []
    root = _built(model.need("Node"), predictions)
    keeps_last = model.get("noTrueChildStrategy", "returnNullPrediction") == "returnLastPrediction"
    values, said = _values(predictions, file), _said(predictions, file)
    names = full(len(predictions) + 1, None)
    names[:-1] = [each.get("id") or None for each in predictions]

    def score(frame: Frame) -> Result:
        reached = np.full(frame.rows, -1)
        holds = root.holds(frame).holds
        _descend(root, frame, np.flatnonzero(holds), reached, strategy, keeps_last)
        result = _result(values, names, reached, file)
        for place, label in said:
            result.value[reached == place] = label
        return result

    return score


def _said(predictions: list[Element], file: File) -> list[tuple[int, str]]:
    """Return the score of each prediction of a class that is not the likeliest of its own."""
    found = []
    for place, each in enumerate(predictions if file.classes else ()):
        scores, label = _scores(each, file.classes), each.get("score")
        if label and file.place(each, label) != scores.index(max(scores)):
            found.append((place, label))
    return found


def _built(element: Element, predictions: list[Element]) -> _Node:
    """Return the tree below an element; without recursion, since trees may be deep."""
    root = _Node(element, predictions)
    waiting = [(element, root)]
    while waiting:
        above, node = waiting.pop()
        for child in above.all("Node"):
            made = _Node(child, predictions)
            node.children.append(made)
            waiting.append((child, made))
    return root


def _descend(
    root: _Node, frame: Frame, rows: Array, reached: Array, strategy: str, keeps_last: bool
) -> None:
    """Set for each of `rows` the number of the prediction that it reaches."""
    waiting = [(root, rows)]
    while waiting:
        node, here = waiting.pop()
        if not node.children:
            reached[here] = node.prediction
            continue
        for child in node.children:
            if not len(here):
                break
            truth = child.holds(frame.of_rows(here))
            waiting.append((child, here[truth.holds]))
            left = ~truth.holds
            if strategy != "none" and truth.unknown.any():
                _stop(node, here[truth.unknown], reached, strategy, waiting)
                left &= ~truth.unknown
            here = here[left]
        reached[here] = node.prediction if keeps_last else -1


def _stop(node: _Node, rows: Array, reached: Array, strategy: str, waiting: list[Any]) -> None:
    """Treat rows of a node for which a value is missing."""
    if strategy == "defaultChild":
        found = [child for child in node.children if child.identity == node.default]
        waiting += [(child, rows) for child in found[:1]]
    else:
        reached[rows] = node.prediction if strategy == "lastPrediction" else -1


def _values(predictions: list[Element], file: File) -> Array:
    """Return what each prediction gives: a number, or scores of the classes; NaN for the last."""
    if not file.classes:
        numbers = [each.number("score") for each in predictions]
        return np.array([*numbers, np.nan])
    return np.array([*(_scores(each, file.classes) for each in predictions), _nothing(file)])


def _nothing(file: File) -> list[float]:
    return [float("nan")] * len(file.classes)


def _scores(element: Element, classes: tuple[str, ...]) -> list[float]:
    """Return the probabilities of a node: as it says, else from its counts, else its score."""
    found = {each.get("value"): each for each in element.all("ScoreDistribution")}
    if not found:
        return [float(element.get("score") == name) for name in classes]
    known = [found[name] for name in classes if name in found]
    if all("probability" in each.attributes for each in known):
        weights = {each.get("value"): each.number("probability") for each in known}
        return [weights.get(name, 0.0) for name in classes]
    counts = {each.get("value"): each.number("recordCount") for each in known}
    total = sum(counts.values()) or 1.0
    return [counts.get(name, 0.0) / total for name in classes]


def _result(values: Array, names: Array, reached: Array, file: File) -> Result:
    if not file.classes:
        return Result(values[reached], entity=names[reached])
    result = of_scores(values[reached], file.classes)
    result.entity = names[reached]
    return result
