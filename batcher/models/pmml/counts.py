"""NaiveBayesModel: the logarithms of the probabilities of all inputs are added for each class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import derived, unsupported
from batcher.models.pmml.frame import Frame, equals, is_missing, numbers
from batcher.models.pmml.linear import softmax
from batcher.models.pmml.scoring import File, Result, Scorer, of_scores

Part = Callable[[Frame], Array]
"""Returns for each row and class the logarithm of a probability, up to a constant of the row."""


def bayes(model: Element, file: File) -> Scorer:
    """Return the scorer of a NaiveBayesModel."""
    threshold = model.number("threshold")
    output = model.need("BayesOutput").need("TargetValueCounts")
    counts = {each.get("value"): each.number("count") for each in output.all("TargetValueCount")}
    prior = np.log([max(counts.get(name, 0.0), threshold or 1e-300) for name in file.classes])
    parts = [
        _part(each, file, counts, threshold) for each in model.need("BayesInputs").all("BayesInput")
    ]

    def score(frame: Frame) -> Result:
        total = np.tile(prior, (frame.rows, 1))
        for part in parts:
            total += part(frame)
        return of_scores(softmax(total), file.classes)

    return score


def _part(element: Element, file: File, counts: dict[str, float], threshold: float) -> Part:
    stats = element.find("TargetValueStats")
    return (
        _numbers(element, stats, file, threshold)
        if stats is not None
        else _categories(element, file, counts, threshold)
    )


def _numbers(element: Element, stats: Element, file: File, threshold: float) -> Part:
    """Return the part of an input with a normal distribution for each class."""
    means, variances = np.zeros(len(file.classes)), np.ones(len(file.classes))
    for each in stats.all("TargetValueStat"):
        normal = each.find("GaussianDistribution")
        if normal is None:
            raise unsupported(each, "a distribution that is not normal")
        place = file.place(each, each.get("value"))
        means[place], variances[place] = normal.number("mean"), normal.number("variance")
    name = element.get("fieldName")

    def part(frame: Frame) -> Array:
        column = numbers(frame[name])[:, None]
        density = -((column - means) ** 2) / (2 * variances) - np.log(2 * np.pi * variances) / 2
        if threshold:
            density = np.maximum(density, np.log(threshold))
        return np.where(np.isnan(column), 0.0, density)

    return part


def _categories(element: Element, file: File, counts: dict[str, float], threshold: float) -> Part:
    """Return the part of an input with counts of its values for each class."""
    name = element.get("fieldName")
    field = element.find("DerivedField")
    source = derived(field, file.functions) if field is not None else None
    rows = {
        pair.get("value"): _logs(pair, file, counts, threshold)
        for pair in element.all("PairCounts")
    }

    def part(frame: Frame) -> Array:
        column = source(frame) if source is not None else frame[name]
        total = np.zeros((frame.rows, len(file.classes)))
        lack = is_missing(column)
        for value, logs in rows.items():
            total[equals(column, value) & ~lack] = logs
        return total

    return part


def _logs(pair: Element, file: File, counts: dict[str, float], threshold: float) -> Array:
    """Return for each class the logarithm of the share of rows that have the pair's value."""
    listed = [each for each in pair.walk() if each.tag == "TargetValueCount"]
    found = {each.get("value"): each.number("count") for each in listed}
    shares = [
        found.get(each, 0.0) / counts[each] if counts.get(each) else 0.0 for each in file.classes
    ]
    return np.log(np.maximum(shares, threshold or 1e-300))
