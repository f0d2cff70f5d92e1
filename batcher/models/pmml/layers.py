"""NeuralNetwork: each layer is a product with a matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import expression_in, unsupported
from batcher.models.pmml.frame import Frame, numbers
from batcher.models.pmml.linear import softmax
from batcher.models.pmml.scoring import File, Result, Scorer, of_scores

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda value: value,
    "logistic": lambda value: 1 / (1 + np.exp(-value)),
    "tanh": np.tanh,
    "rectifier": lambda value: np.maximum(value, 0),
    "exponential": np.exp,
    "sine": np.sin,
    "cosine": np.cos,
    "arctan": lambda value: 2 * np.arctan(value) / np.pi,
    "Gauss": lambda value: np.exp(-(value**2)),
    "square": np.square,
    "Elliott": lambda value: value / (1 + np.abs(value)),
}


def network(model: Element, file: File) -> Scorer:
    """Return the scorer of a NeuralNetwork."""
    inputs = model.need("NeuralInputs").all("NeuralInput")
    fields = [expression_in(each.need("DerivedField"), file.functions) for each in inputs]
    names = [each.get("id") for each in inputs]
    layers = []
    for layer in model.all("NeuralLayer"):
        layers.append(_layer(model, layer, names))
        names = [each.get("id") for each in layer.all("Neuron")]
    outputs = model.need("NeuralOutputs").all("NeuralOutput")
    finish = _classes if file.classes else _number
    last = finish(outputs, names, file)

    def score(frame: Frame) -> Result:
        values = np.stack([numbers(field(frame)) for field in fields], axis=1)
        with np.errstate(over="ignore"):
            for layer in layers:
                values = layer(values)
        return last(values)

    return score


def _layer(model: Element, layer: Element, names: list[str]) -> Callable[[Array], Array]:
    """Return a layer as a function of the values of the layer before."""
    places = {name: place for place, name in enumerate(names)}
    neurons = layer.all("Neuron")
    weights, bias = np.zeros((len(names), len(neurons))), np.zeros(len(neurons))
    for column, neuron in enumerate(neurons):
        bias[column] = neuron.number("bias", 0.0)
        for con in neuron.all("Con"):
            if con.get("from") not in places:
                raise unsupported(con, "a connection that skips a layer")
            weights[places[con.get("from")], column] = con.number("weight")
    name = layer.get("activationFunction") or model.get("activationFunction")
    activation = ACTIVATIONS.get(name)
    norm = layer.get("normalizationMethod") or model.get("normalizationMethod", "none")
    if activation is None or norm not in ("none", "softmax", "simplemax"):
        raise unsupported(layer, f"the activation {name}, or the normalization {norm}")

    def run(values: Array) -> Array:
        found = activation(values @ weights + bias)
        if norm == "softmax":
            return softmax(found)
        return np.asarray(found / found.sum(1, keepdims=True) if norm == "simplemax" else found)

    return run


def _classes(outputs: list[Element], names: list[str], file: File) -> Callable[[Array], Result]:
    places = []
    for output in outputs:
        norm = output.need("DerivedField").need("NormDiscrete")
        place = file.place(norm, norm.get("value"))
        places.append((names.index(output.get("outputNeuron")), place))

    def finish(values: Array) -> Result:
        scores = np.zeros((len(values), len(file.classes)))
        for neuron, place in places:
            scores[:, place] = values[:, neuron]
        return of_scores(scores, file.classes)

    return finish


def _number(outputs: list[Element], names: list[str], file: File) -> Callable[[Array], Result]:
    """Return what turns the last layer into a number, by the inverse of the output's norm."""
    place = names.index(outputs[0].get("outputNeuron"))
    field = outputs[0].need("DerivedField")
    norm = field.find("NormContinuous")
    if norm is None and field.find("FieldRef") is None:
        raise unsupported(field, "neither FieldRef nor NormContinuous")
    points = norm.all("LinearNorm") if norm is not None else []
    if not points:
        return lambda values: Result(values[:, place])
    (x0, y0), (x1, y1) = ((p.number("orig"), p.number("norm")) for p in (points[0], points[-1]))
    return lambda values: Result(x0 + (values[:, place] - y0) * (x1 - x0) / (y1 - y0))
