"""Scorecard and RuleSetModel: sums and votes of conditions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import expression_in, unsupported
from batcher.models.pmml.frame import Derived, Frame, full, numbers
from batcher.models.pmml.predicates import Predicate, predicate_in
from batcher.models.pmml.scoring import File, Result, Scorer, of_labels, of_scores

_Rule = tuple[tuple[Predicate, ...], Element]
"""All conditions of a simple rule, and the rule."""


def scorecard(model: Element, file: File) -> Scorer:
    """Return the scorer of a Scorecard: the first attribute that holds gives points."""
    initial = model.number("initialScore", 0.0)
    listed = model.need("Characteristics").all("Characteristic")
    cards = [
        [(predicate_in(each), _points(each, file)) for each in characteristic.all("Attribute")]
        for characteristic in listed
    ]

    def score(frame: Frame) -> Result:
        total = np.full(frame.rows, initial)
        for attributes in cards:
            open_rows = np.ones(frame.rows, bool)
            for holds, points in attributes:
                here = holds(frame).holds & open_rows
                total[here] += points(frame)[here]
                open_rows &= ~here
            total[open_rows] = np.nan  # no attribute holds: there is no score
        return Result(total)

    return score


def _points(attribute: Element, file: File) -> Derived:
    complex_score = attribute.find("ComplexPartialScore")
    if complex_score is not None:
        inner = expression_in(complex_score, file.functions)
        return lambda frame: numbers(inner(frame))
    points = attribute.number("partialScore")
    return lambda frame: np.full(frame.rows, points)


def rule_set(model: Element, file: File) -> Scorer:
    """Return the scorer of a RuleSetModel."""
    rules = model.need("RuleSet")
    method = rules.need("RuleSelectionMethod").get("criterion")
    if method not in ("firstHit", "weightedSum", "weightedMax"):
        raise unsupported(rules, f"the criterion {method}")
    listed = list(_simple_rules(rules, ()))
    places = [file.place(rule, rule.get("score")) for _, rule in listed]
    add = np.add if method == "weightedSum" else np.maximum
    default = rules.get("defaultScore") or None
    if default is not None:
        file.place(rules, default)

    def score(frame: Frame) -> Result:
        if method == "firstHit":
            return of_labels(_first(frame, listed, default), file.classes)
        votes = np.zeros((frame.rows, len(file.classes)))
        for (conditions, rule), place in zip(listed, places, strict=True):
            holds = np.all([each(frame).holds for each in conditions], axis=0)
            votes[holds, place] = add(votes[holds, place], rule.number("weight", 1.0))
        found = of_scores(votes, file.classes)
        found.value[votes.max(axis=1) == 0] = default
        return found

    return score


def _first(frame: Frame, listed: list[_Rule], default: str | None) -> Array:
    labels = full(frame.rows, default)
    open_rows = np.ones(frame.rows, bool)
    for conditions, rule in listed:
        holds = np.all([each(frame).holds for each in conditions], axis=0) & open_rows
        labels[holds] = rule.get("score")
        open_rows &= ~holds
    return labels


def _simple_rules(element: Element, above: tuple[Predicate, ...]) -> Iterator[_Rule]:
    """Yield each simple rule with all conditions that must hold for it."""
    for child in element.all("SimpleRule", "CompoundRule"):
        conditions = (*above, predicate_in(child))
        if child.tag == "SimpleRule":
            yield conditions, child
        else:
            yield from _simple_rules(child, conditions)
