"""MiningModel and what all models have: schemas, transformations, targets, outputs.

multipleModelMethod                 of a segment whose condition holds
average, weightedAverage, median,   numbers, or probabilities of classes
max, sum, weightedSum
majorityVote, weightedMajorityVote  labels
selectFirst                         the first one answers
modelChain                          outputs are fields of the next; the last one answers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from batcher.config.pmml.document import Element
from batcher.config.pmml.fields import MODELS, OTHERS
from batcher.core.spec import Array
from batcher.models.pmml import counts, distances, layers, linear, rules, trees, vectors
from batcher.models.pmml.expressions import expression_in, fields_in, unsupported
from batcher.models.pmml.frame import Derived, Frame, cast, is_missing, number_of, numbers
from batcher.models.pmml.predicates import Predicate, predicate_in
from batcher.models.pmml.scoring import File, Result, Scorer, empty, of_scores

_KINDS: dict[str, Callable[[Element, File], Scorer]] = {
    "TreeModel": trees.tree,
    "RegressionModel": linear.regression,
    "GeneralRegressionModel": linear.general,
    "NeuralNetwork": layers.network,
    "SupportVectorMachineModel": vectors.machines,
    "ClusteringModel": distances.clusters,
    "NearestNeighborModel": distances.neighbors,
    "NaiveBayesModel": counts.bayes,
    "Scorecard": rules.scorecard,
    "RuleSetModel": rules.rule_set,
}
_CASTS: dict[str, Callable[[Array], Array]] = {
    "round": lambda value: np.floor(value + 0.5),
    "ceiling": np.ceil,
    "floor": np.floor,
}
_METHODS = (
    *("average", "weightedAverage", "median", "max", "sum", "weightedSum"),
    *("majorityVote", "weightedMajorityVote", "selectFirst", "modelChain"),
)


def scorer(model: Element, file: File) -> Scorer:
    """Return the scorer of a model, whatever its kind. Raises ModelLoadError."""
    if model.get("functionName") != "classification":
        file = file._replace(classes=())
    makers = _KINDS | {"MiningModel": mining, "AnomalyDetectionModel": anomaly}
    maker = makers.get(model.tag)
    if maker is None:
        raise unsupported(model)
    inner = maker(model, file)
    schema = model.find("MiningSchema")
    replaced = replacements(schema) if schema is not None else {}
    local = fields_in(model.find("LocalTransformations"), file.functions)
    targets = _targets(model)

    def score(frame: Frame) -> Result:
        columns = {
            name: replace(frame[name]) for name, replace in replaced.items() if name in frame
        }
        within = frame.with_more(columns, {**local}) if columns or local else frame
        return targets(inner(within))

    return score


def replacements(schema: Element) -> dict[str, Callable[[Array], Array]]:
    """Return what replaces missing and extreme values, by the names of fields."""
    found = {}
    for field in schema.all("MiningField"):
        if field.get("usageType", "active") == "active" and (
            "missingValueReplacement" in field.attributes or field.get("outliers", "asIs") != "asIs"
        ):
            found[field.get("name")] = _replacement(field)
    return found


def _replacement(field: Element) -> Callable[[Array], Array]:
    text, outliers = field.attributes.get("missingValueReplacement"), field.get("outliers")
    low, high = field.number("lowValue", -np.inf), field.number("highValue", np.inf)

    def replace(column: Array) -> Array:
        column = column.copy()
        if outliers == "asExtremeValues":
            column = np.clip(numbers(column), low, high)
        elif outliers == "asMissingValues":
            column = numbers(column)
            column[(column < low) | (column > high)] = np.nan
        if text is not None:
            column[is_missing(column)] = text if column.dtype.hasobject else number_of(text)
        return column

    return replace


def _targets(model: Element) -> Callable[[Result], Result]:
    """Return what a model's Targets make of its numbers."""
    element = model.find("Targets")
    target = element.find("Target") if element is not None else None
    if target is None:
        return lambda result: result
    factor, constant = target.number("rescaleFactor", 1.0), target.number("rescaleConstant", 0.0)
    low, high = target.number("min", -np.inf), target.number("max", np.inf)
    to_integer = _CASTS.get(target.get("castInteger"), np.asarray)

    def rescaled(result: Result) -> Result:
        if result.value.dtype.hasobject:
            return result
        value = np.clip(result.value, low, high) * factor + constant
        return Result(to_integer(value), result.scores, result.entity)

    return rescaled


class _Segment(NamedTuple):
    """A model within a model."""

    holds: Predicate
    score: Scorer
    weight: float
    outputs: Callable[[Frame, Result], dict[str, Array]]


def mining(model: Element, file: File) -> Scorer:
    """Return the scorer of a MiningModel."""
    segmentation = model.need("Segmentation")
    method = segmentation.get("multipleModelMethod")
    if method not in _METHODS:
        raise unsupported(segmentation, f"multipleModelMethod {method}")
    treatment = segmentation.get("missingPredictionTreatment", "continue")
    if treatment not in ("continue", "returnMissing"):
        raise unsupported(segmentation, f"missingPredictionTreatment {treatment}")
    if segmentation.number("missingThreshold", 0.0):
        raise unsupported(segmentation, "missingThreshold")
    segments = [_segment(each, file) for each in segmentation.all("Segment")]
    if not segments:
        raise unsupported(segmentation, "no Segment in it")
    if method == "modelChain":
        for each in segmentation.all("Segment"):
            if each.find("True") is None:
                raise unsupported(each, "a condition in a modelChain")
        return _chain(segments, file)
    if method == "selectFirst":
        return _select(segments, file)
    is_strict = treatment == "returnMissing"
    return lambda frame: _combined(frame, segments, method, file, is_strict)


def _segment(element: Element, file: File) -> _Segment:
    models = element.all(*MODELS, *OTHERS)
    if len(models) != 1:
        raise unsupported(element, "no model in it")
    weight = element.number("weight", 1.0)
    outputs = outputs_of(models[0].find("Output"), file)
    return _Segment(predicate_in(element), scorer(models[0], file), weight, outputs)


def outputs_of(element: Element | None, file: File) -> Callable[[Frame, Result], dict[str, Array]]:
    """Return what works out the output fields of a model, which later models read."""
    fields = element.all("OutputField") if element is not None else []
    makers = [(each.get("name"), _output(each, file)) for each in fields]

    def outputs(frame: Frame, result: Result) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name, make in makers:
            found[name] = make(frame.with_more(found, {}), result)
        return found

    return outputs


def _output(field: Element, file: File) -> Callable[[Frame, Result], Array]:
    feature = field.get("feature", "predictedValue")
    data_type = field.get("dataType", "double")
    if feature == "predictedValue":
        return lambda frame, result: result.value
    if feature == "probability":
        name = field.get("value")
        place = file.classes.index(name) if name in file.classes else None
        return lambda frame, result: _probability(result, place)
    if feature in ("transformedValue", "decision"):
        inner: Derived = expression_in(field, file.functions)
        return lambda frame, result: cast(inner(frame), data_type)
    if feature in ("entityId", "clusterId"):
        return lambda frame, result: result.value if result.entity is None else result.entity
    why = f"feature {feature}"

    def refuse(frame: Frame, result: Result) -> Array:
        raise unsupported(field, why)

    return refuse


def _probability(result: Result, place: int | None) -> Array:
    assert result.scores is not None
    return result.scores.max(axis=1) if place is None else result.scores[:, place]


def _chain(segments: list[_Segment], file: File) -> Scorer:
    def score(frame: Frame) -> Result:
        result = empty(frame, file.classes)
        for segment in segments:
            result = segment.score(frame)
            frame = frame.with_more(segment.outputs(frame, result), {})
        return result

    return score


def _select(segments: list[_Segment], file: File) -> Scorer:
    def score(frame: Frame) -> Result:
        found = empty(frame, file.classes)
        open_rows = np.ones(frame.rows, bool)
        for segment in segments:
            here = segment.holds(frame).holds & open_rows
            result = segment.score(frame)
            if not result.value.dtype.hasobject or found.value.dtype.hasobject:
                found.value[here] = result.value[here]
            if found.scores is not None and result.scores is not None:
                found.scores[here] = result.scores[here]
            open_rows &= ~here
        return found

    return score


def _combined(
    frame: Frame, segments: list[_Segment], method: str, file: File, is_strict: bool
) -> Result:
    """Return what the segments whose conditions hold give together.

    `is_strict` says that no answer of one of them is no answer of all, also where they vote.
    """
    results = [segment.score(frame) for segment in segments]
    holds = np.stack([segment.holds(frame).holds for segment in segments])
    is_weighted = method.startswith("weighted")
    weights = np.array([s.weight if is_weighted else 1.0 for s in segments])[:, None] * holds
    if not file.classes:
        values = np.stack([numbers(result.value) for result in results])
        return Result(_of_numbers(values, weights, holds, method))
    if method in ("majorityVote", "weightedMajorityVote"):
        return _voted(results, weights, file.classes, is_strict)
    count = len(file.classes)
    found = _of_numbers(
        np.stack([_scores(result) for result in results]).reshape(len(results), -1),
        np.repeat(weights, count, axis=1),
        np.repeat(holds, count, axis=1),
        method,
    )
    return of_scores(found.reshape(frame.rows, count), file.classes)


def _voted(
    results: list[Result], weights: Array, classes: tuple[str, ...], is_strict: bool
) -> Result:
    """Return the labels with the most votes; no label is one that may win as well."""
    places = {name: place for place, name in enumerate(classes)}
    none = len(classes)
    ballots = np.array([[places.get(label, none) for label in each.value] for each in results])
    votes = (np.eye(none + 1)[ballots] * weights[:, :, None]).sum(axis=0)
    scores = votes[:, :none] / votes[:, :none].sum(axis=1, keepdims=True)
    scores[votes[:, none] > (0.0 if is_strict else votes[:, :none].max(axis=1))] = np.nan
    return of_scores(scores, classes)


def _scores(result: Result) -> Array:
    assert result.scores is not None
    return result.scores


def _of_numbers(values: Array, weights: Array, holds: Array, method: str) -> Array:
    own = np.where(holds, values, 0.0)  # of a row that is not its own a segment may say NaN
    if method in ("sum", "weightedSum"):
        return np.asarray((own * weights).sum(axis=0))
    if method in ("average", "weightedAverage"):
        return np.asarray((own * weights).sum(axis=0) / weights.sum(axis=0))
    chosen = np.where(holds, values, np.nan)
    found = np.asarray((np.nanmedian if method == "median" else np.nanmax)(chosen, axis=0))
    return np.where((np.isnan(values) & holds).any(axis=0), np.nan, found)


def anomaly(model: Element, file: File) -> Scorer:
    """Return the scorer of an AnomalyDetectionModel, whose inner model gives the score."""
    models = model.all(*MODELS, *OTHERS)
    if len(models) != 1:
        raise unsupported(model, "no model in it")
    kind = model.get("algorithmType")
    if kind in ("ocsvm", "other"):
        return scorer(models[0], file)
    if kind != "iforest":  # clusterMeanDist needs distances, which a clustering does not give
        raise unsupported(model, f"algorithmType {kind!r}")
    size = model.number("sampleDataSize")
    if not size >= 2:
        raise ValueError(f"{model}: sampleDataSize: expected 2 or more; got {size:g}")
    # The length of a path that a search without success takes on average.
    usual = 2 * (np.log(size - 1) + np.euler_gamma) - 2 * (size - 1) / size if size > 2 else 1.0
    inner = scorer(models[0], file)
    return lambda frame: Result(2 ** (-inner(frame).value / usual))
