"""RegressionModel and GeneralRegressionModel: sums of weighted fields, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, sqrt

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import unsupported
from batcher.models.pmml.frame import Frame, equals, is_missing, numbers
from batcher.models.pmml.scoring import File, Result, Scorer, of_scores

Sum = Callable[[Frame], Array]


def _normal(value: Array) -> Array:
    found = [0.5 * (1 + erf(each / sqrt(2))) for each in value.ravel()]
    return np.array(found).reshape(value.shape)


INVERSES: dict[str, Callable[[Array], Array]] = {
    "none": lambda value: value,
    "identity": lambda value: value,
    "logit": lambda value: 1 / (1 + np.exp(-value)),
    "exp": np.exp,
    "log": np.exp,
    "probit": _normal,
    "cloglog": lambda value: 1 - np.exp(-np.exp(value)),
    "loglog": lambda value: np.exp(-np.exp(-value)),
    "cauchit": lambda value: 0.5 + np.arctan(value) / np.pi,
    "inverse": lambda value: 1 / value,
}
"""What turns a sum into a value, by the names of normalizations and of links."""


def softmax(values: Array) -> Array:
    """Return for each row values between 0 and 1 with a sum of 1."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def regression(model: Element, file: File) -> Scorer:
    """Return the scorer of a RegressionModel."""
    tables = model.all("RegressionTable")
    if not tables:
        raise unsupported(model, "no RegressionTable in it")
    sums = [_table(each) for each in tables]
    method = model.get("normalizationMethod", "none")
    if not file.classes or model.get("functionName") == "regression":
        # Of a number softmax and logit are the same.
        inverse = _inverse(model, "logit" if method == "softmax" else method)
        return lambda frame: Result(inverse(sums[0](frame)))
    places = [file.place(each, each.get("targetCategory")) for each in tables]

    def score(frame: Frame) -> Result:
        values = np.stack([each(frame) for each in sums], axis=1)
        scores = np.zeros((frame.rows, len(file.classes)))
        scores[:, places] = probabilities(model, values, method)
        return of_scores(scores, file.classes)

    return score


def probabilities(model: Element, values: Array, method: str) -> Array:
    """Return the probabilities of classes from the sums of their tables, as a method says."""
    if method == "softmax":
        return softmax(values)
    if method == "simplemax":
        return np.asarray(values / values.sum(axis=1, keepdims=True))
    inverse = _inverse(model, method)
    if values.shape[1] == 2:
        first = inverse(values[:, 0])
        return np.stack([first, 1 - first], axis=1)
    found = inverse(values)
    if method == "none":
        found[:, -1] = 1 - found[:, :-1].sum(axis=1)
        return found
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _inverse(model: Element, method: str) -> Callable[[Array], Array]:
    found = INVERSES.get(method)
    if found is None:
        raise unsupported(model, f"the normalization {method}")

    def inverse(value: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(found(value))

    return inverse


def _table(element: Element) -> Sum:
    """Return the sum of a RegressionTable."""
    intercept = element.number("intercept", 0.0)
    tags = ("NumericPredictor", "CategoricalPredictor", "PredictorTerm")
    parts = [(each.number("coefficient"), _term(each)) for each in element.all(*tags)]

    def total(frame: Frame) -> Array:
        found = np.full(frame.rows, intercept)
        for coefficient, term in parts:
            found += coefficient * term(frame)
        return found

    return total


def _term(element: Element) -> Sum:
    """Return what a predictor is multiplied with: a power, whether a value is there, a product."""
    name, value = element.get("name"), element.get("value")
    if element.tag == "CategoricalPredictor":
        return lambda frame: equals(frame[name], value).astype(np.float64)
    if element.tag == "NumericPredictor":
        exponent = element.number("exponent", 1.0)
        return lambda frame: np.asarray(numbers(frame[name]) ** exponent)
    names = [each.get("field") for each in element.all("FieldRef")]
    return lambda frame: np.asarray(np.prod([numbers(frame[each]) for each in names], axis=0))


def general(model: Element, file: File) -> Scorer:
    """Return the scorer of a GeneralRegressionModel."""
    kind = model.get("modelType")
    if kind not in ("regression", "generalLinear", "generalizedLinear", "multinomialLogistic"):
        raise unsupported(model, f"modelType {kind}")
    for name in ("offsetVariable", "offsetValue", "trialsVariable", "trialsValue"):
        if name in model.attributes:
            raise unsupported(model, name)
    link = model.get("linkFunction", "identity") if kind == "generalizedLinear" else "identity"
    parameters = _parameters(model)
    cells = model.need("ParamMatrix").all("PCell")
    if not file.classes:
        inverse = _inverse(model, link)
        weights = [(each.get("parameterName"), each.number("beta")) for each in cells]
        return lambda frame: Result(inverse(_weighted(frame, weights, parameters)))
    return _classes(model, file, cells, parameters, link)


def _classes(
    model: Element, file: File, cells: list[Element], parameters: dict[str, Sum], link: str
) -> Scorer:
    """Return the scorer of a general model that has a sum for each class but one."""
    targets = list(dict.fromkeys(each.get("targetCategory") for each in cells))
    by_target = [_betas(cells, name) for name in targets]
    places = [file.place(model, name) for name in targets]
    is_binary, inverse = model.get("modelType") == "generalizedLinear", _inverse(model, link)

    def score(frame: Frame) -> Result:
        sums = np.zeros((frame.rows, len(file.classes)))
        for place, weights in zip(places, by_target, strict=True):
            sums[:, place] = _weighted(frame, weights, parameters)
        if not is_binary:
            return of_scores(softmax(sums), file.classes)
        first = inverse(sums[:, places[0]])
        scores = np.stack([1 - first, first], axis=1)
        return of_scores(scores if places[0] == 1 else scores[:, ::-1], file.classes)

    return score


def _betas(cells: list[Element], target: str) -> list[tuple[str, float]]:
    """Return the weights of the parameters for a class."""
    found = [each for each in cells if each.get("targetCategory") == target]
    return [(each.get("parameterName"), each.number("beta")) for each in found]


def _weighted(frame: Frame, weights: list[tuple[str, float]], parameters: dict[str, Sum]) -> Array:
    found = np.zeros(frame.rows)
    for name, beta in weights:
        found += beta * (parameters[name](frame) if name in parameters else 1.0)
    return found


def _parameters(model: Element) -> dict[str, Sum]:
    """Return what each parameter is: the product of covariates and of factors that hold."""
    matrix = model.find("PPMatrix")
    factors = model.find("FactorList")
    names = (
        {each.get("name") for each in factors.all("Predictor")} if factors is not None else set()
    )
    by_parameter: dict[str, list[tuple[str, str]]] = {}
    for cell in matrix.all("PPCell") if matrix is not None else ():
        pair = (cell.get("predictorName"), cell.get("value"))
        by_parameter.setdefault(cell.get("parameterName"), []).append(pair)
    return {name: _product(pairs, names) for name, pairs in by_parameter.items()}


def _product(pairs: list[tuple[str, str]], factors: set[str]) -> Sum:
    def product(frame: Frame) -> Array:
        found = np.ones(frame.rows)
        for name, value in pairs:
            column = frame[name]
            if name in factors:
                found *= np.where(is_missing(column), np.nan, equals(column, value))
            else:
                found *= numbers(column) ** float(value)
        return found

    return product
