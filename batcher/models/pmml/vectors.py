"""SupportVectorMachineModel: each machine is a sum over the vectors that it names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import expression, unsupported
from batcher.models.pmml.frame import Frame, full, numbers
from batcher.models.pmml.predicates import array_numbers
from batcher.models.pmml.scoring import File, Result, Scorer, of_labels, without

_KERNELS = (
    *("LinearKernelType", "PolynomialKernelType", "RadialBasisKernelType", "SigmoidKernelType"),
)
Kernel = Callable[[Array, Array], Array]


def machines(model: Element, file: File) -> Scorer:
    """Return the scorer of a SupportVectorMachineModel."""
    if model.get("svmRepresentation", "SupportVectors") != "SupportVectors":
        raise unsupported(model, "svmRepresentation Coefficients")
    dictionary = model.need("VectorDictionary")
    tags = ("FieldRef", "CategoricalPredictor")
    listed = [each for each in dictionary.need("VectorFields").children if each.tag in tags]
    if any(each.tag == "CategoricalPredictor" for each in listed):
        raise unsupported(dictionary, "CategoricalPredictor")
    fields = [expression(each, file.functions) for each in listed]
    instances = {
        each.get("id"): _vector(each, len(fields)) for each in dictionary.all("VectorInstance")
    }
    kernel = _kernel(model)
    parts = [_machine(each, instances, kernel) for each in model.all("SupportVectorMachine")]
    decide = _decide(model, file)

    def score(frame: Frame) -> Result:
        rows = np.stack([numbers(field(frame)) for field in fields], axis=1)
        sums = np.stack([part(rows) for part in parts], axis=1)
        return without(decide(sums), np.isnan(sums).any(axis=1))

    return score


def _vector(element: Element, size: int) -> Array:
    """Return the numbers of a vector, which may be listed with their places alone."""
    plain = element.find("Array")
    if plain is not None:
        return np.array(array_numbers(plain))
    sparse = element.need("REAL-SparseArray")
    found = np.zeros(size)
    indices, entries = sparse.find("Indices"), sparse.find("REAL-Entries")
    if indices is not None and entries is not None:
        found[[int(each) - 1 for each in indices.text.split()]] = array_numbers(entries)
    return found


def _kernel(model: Element) -> Kernel:
    """Return the kernel of a model: a number for each pair of a row and a vector."""
    found = [each for each in model.children if each.tag in _KERNELS]
    if len(found) != 1:
        raise unsupported(model, "no kernel that is served")
    element = found[0]
    gamma, shift = element.number("gamma", 1.0), element.number("coef0", 1.0)
    if element.tag == "LinearKernelType":
        return lambda rows, vectors: rows @ vectors.T
    if element.tag == "PolynomialKernelType":
        degree = element.number("degree", 1.0)
        return lambda rows, vectors: (gamma * (rows @ vectors.T) + shift) ** degree
    if element.tag == "SigmoidKernelType":
        return lambda rows, vectors: np.tanh(gamma * (rows @ vectors.T) + shift)
    return lambda rows, vectors: np.exp(-gamma * _squares(rows, vectors))


def _squares(rows: Array, vectors: Array) -> Array:
    """Return the square of the distance of each row from each vector."""
    return np.asarray(((rows[:, None, :] - vectors[None, :, :]) ** 2).sum(axis=2))


def _machine(
    element: Element, instances: dict[str, Array], kernel: Kernel
) -> Callable[[Array], Array]:
    """Return the sum of a machine over its vectors."""
    coefficients = element.need("Coefficients")
    bias = coefficients.number("absoluteValue", 0.0)
    values = np.array([each.number("value", 0.0) for each in coefficients.all("Coefficient")])
    support = element.find("SupportVectors")
    ids = [each.get("vectorId") for each in support.all("SupportVector")] if support else []
    if not ids:
        return lambda rows: np.full(len(rows), bias)
    vectors = np.stack([instances[each] for each in ids])
    return lambda rows: np.asarray(kernel(rows, vectors) @ values + bias)


def _decide(model: Element, file: File) -> Callable[[Array], Result]:
    """Return what makes numbers or labels of the sums of all machines."""
    if not file.classes:
        return lambda sums: Result(sums[:, 0])
    listed = model.all("SupportVectorMachine")
    pairs = [(each.get("targetCategory"), each.get("alternateTargetCategory")) for each in listed]
    limits = [each.number("threshold", model.number("threshold", 0.0)) for each in listed]
    wins_high = model.get("maxWins") == "true"
    if model.get("classificationMethod", "OneAgainstAll") == "OneAgainstAll" and len(pairs) > 1:
        names = np.array([first for first, _ in pairs], object)
        best = np.argmax if wins_high else np.argmin
        return lambda sums: of_labels(names[best(sums, axis=1)], file.classes)

    def vote(sums: Array) -> Result:
        votes = np.zeros((len(sums), len(file.classes)))
        for column, ((first, second), limit) in enumerate(zip(pairs, limits, strict=True)):
            is_first = sums[:, column] > limit if wins_high else sums[:, column] < limit
            other = second or next(name for name in file.classes if name != first)
            votes[:, file.classes.index(first)] += is_first
            votes[:, file.classes.index(other)] += ~is_first
        names = full(len(file.classes), None)
        names[:] = file.classes
        return of_labels(names[votes.argmax(axis=1)], file.classes)

    return vote
