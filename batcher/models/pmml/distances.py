"""ClusteringModel and NearestNeighborModel: what is nearest to a row.

A field that is missing counts for no distance, and the others count for more instead:

    distance = (adjust * sum of the known gaps),   adjust = all fields / those that are known

Where all are missing there is no answer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import unsupported
from batcher.models.pmml.frame import Frame, full, numbers
from batcher.models.pmml.predicates import array_numbers
from batcher.models.pmml.scoring import File, Result, Scorer, of_scores, without

Distance = Callable[[Array, Array], Array]


def _distance(measure: Element, weights: Array, shares: Array) -> Distance:
    """Return the distance of each row from each of some points; NaN where a row has no values.

    `shares` say how much each field counts among those that are known.
    """
    kinds = [child.tag for child in measure.children]
    if measure.get("kind", "distance") != "distance":
        raise unsupported(measure, "a similarity")
    if measure.get("compareFunction", "absDiff") != "absDiff":
        raise unsupported(measure, measure.get("compareFunction"))
    kind = kinds[0] if kinds else ""
    power = measure.children[0].number("p-parameter", 2.0) if kind == "minkowski" else 2.0
    end = _ends(weights, power).get(kind)
    if end is None:
        raise unsupported(measure, kind or "no measure")

    def distance(rows: Array, points: Array) -> Array:
        known = ~np.isnan(rows)
        gaps = np.abs(rows[:, None, :] - points[None, :, :])
        more = shares.sum() / (known @ shares)
        more[~np.isfinite(more)] = np.nan
        return end(np.where(known[:, None, :], gaps, 0.0), more[:, None])

    return distance


def _ends(weights: Array, power: float) -> dict[str, Callable[[Array, Array], Array]]:
    """Return what makes distances of gaps and of `adjust`, by the names of measures."""
    return {
        "euclidean": lambda gaps, more: np.sqrt(more * (weights * gaps**2).sum(axis=2)),
        "squaredEuclidean": lambda gaps, more: more * (weights * gaps**2).sum(axis=2),
        "cityBlock": lambda gaps, more: more * (weights * gaps).sum(axis=2),
        "chebychev": lambda gaps, more: more * (weights * gaps).max(axis=2),
        "minkowski": lambda gaps, more: (more * (weights * gaps**power).sum(axis=2)) ** (1 / power),
    }


def clusters(model: Element, file: File) -> Scorer:
    """Return the scorer of a ClusteringModel: the cluster whose centre is nearest."""
    if model.get("modelClass", "centerBased") != "centerBased":
        raise unsupported(model, f"modelClass {model.get('modelClass')}")
    fields = [
        each for each in model.all("ClusteringField") if each.get("isCenterField", "true") == "true"
    ]
    names = [each.get("field") for each in fields]
    if any("compareFunction" in each.attributes for each in fields):
        raise unsupported(fields[0], "a compareFunction of its own")
    listed = model.all("Cluster")
    centres = np.array([array_numbers(each.need("Array")) for each in listed])
    # Without an id a cluster is called by its place, from 1 on.
    ids = full(len(listed), None)
    ids[:] = [each.get("id") or str(place) for place, each in enumerate(listed, 1)]
    distance = _between_clusters(model, fields)

    def score(frame: Frame) -> Result:
        rows = np.stack([numbers(frame[name]) for name in names], axis=1)
        far = distance(rows, centres)
        found = ids[far.argmin(axis=1)]
        return without(Result(found, entity=found), np.isnan(far[:, 0]))

    return score


def _between_clusters(model: Element, fields: list[Element]) -> Distance:
    weights = np.array([each.number("fieldWeight", 1.0) for each in fields])
    listed = model.find("MissingValueWeights")
    shares = (
        np.ones(len(fields)) if listed is None else np.array(array_numbers(listed.need("Array")))
    )
    return _distance(model.need("ComparisonMeasure"), weights, shares)


def neighbors(model: Element, file: File) -> Scorer:
    """Return the scorer of a NearestNeighborModel: what the nearest instances say."""
    inputs = model.need("KNNInputs").all("KNNInput")
    names = [each.get("field") for each in inputs]
    weights = np.array([each.number("fieldWeight", 1.0) for each in inputs])
    columns, table = _instances(model.need("TrainingInstances"))
    points = np.array([[float(row[columns[name]]) for name in names] for row in table])
    distance = _distance(model.need("ComparisonMeasure"), weights, np.ones(len(names)))
    target = next((name for name in columns if name not in names), "")
    answers = [row[columns[target]] for row in table] if target else []
    count = int(model.number("numberOfNeighbors"))
    combine = _combined(model, file, answers)

    def score(frame: Frame) -> Result:
        rows = np.stack([numbers(frame[name]) for name in names], axis=1)
        far = distance(rows, points)
        nearest = np.argsort(far, axis=1, kind="stable")[:, :count]
        result = combine(nearest, np.take_along_axis(far, nearest, axis=1))
        return without(result, np.isnan(far[:, 0]))

    return score


def _instances(element: Element) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the column of each field, and the rows of the table."""
    fields = element.need("InstanceFields").all("InstanceField")
    columns = {each.get("field"): each.get("column").rpartition(":")[2] for each in fields}
    rows = element.need("InlineTable").all("row")
    return columns, [{child.tag: child.text for child in row.children} for row in rows]


def _combined(model: Element, file: File, answers: list[str]) -> Callable[[Array, Array], Result]:
    """Return what combines the answers of the nearest instances."""
    if file.classes:
        method = model.get("categoricalScoringMethod", "majorityVote")
        if method not in ("majorityVote", "weightedMajorityVote"):
            raise unsupported(model, method)
        places = np.array([file.classes.index(each) for each in answers])
        return lambda nearest, far: _votes(places[nearest], _weights(far, method), file)
    method = model.get("continuousScoringMethod", "average")
    values = np.array(list(map(float, answers)))
    if method == "median":
        return lambda nearest, far: Result(np.median(values[nearest], axis=1))
    if method not in ("average", "weightedAverage"):
        raise unsupported(model, method)
    return lambda nearest, far: Result(_mean(values[nearest], _weights(far, method)))


def _weights(far: Array, method: str) -> Array:
    """Return how much each neighbour counts: all the same, or the nearer the more."""
    if not method.startswith("weighted"):
        return np.ones(far.shape)
    return np.asarray(1 / np.maximum(far, 1e-300))


def _mean(values: Array, weights: Array) -> Array:
    return np.asarray((values * weights).sum(axis=1) / weights.sum(axis=1))


def _votes(places: Array, weights: Array, file: File) -> Result:
    votes = np.stack(
        [(weights * (places == place)).sum(axis=1) for place in range(len(file.classes))], axis=1
    )
    return of_scores(votes / votes.sum(axis=1, keepdims=True), file.classes)
