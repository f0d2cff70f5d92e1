"""Which inputs and outputs a model of PMML has.

inputs     the active fields of its mining schema: numbers FP64, others BYTES; a value that is
missing is NaN, or an empty text. What a missing value means says the model itself
outputs    of a classifier `label` and `probabilities`, of the classes in the file's order; of a
clustering `label`, the cluster; of any other `value`, and what the file works out of it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batcher.config.pmml.document import Element, read_document
from batcher.config.reading import Source
from batcher.errors import ConfigError

MODELS = (
    *("ClusteringModel", "GeneralRegressionModel", "MiningModel", "NaiveBayesModel"),
    *("NearestNeighborModel", "NeuralNetwork", "RegressionModel", "RuleSetModel", "Scorecard"),
    *("SupportVectorMachineModel", "TreeModel", "AnomalyDetectionModel"),
)
"""The kinds of models that are served."""

OTHERS = (
    *("AssociationModel", "BaselineModel", "BayesianNetworkModel", "GaussianProcessModel"),
    *("SequenceModel", "TextModel", "TimeSeriesModel"),
)
"""The kinds of PMML 4.4 that are not."""

NUMBERS = ("integer", "double", "float")


def model_of(document: Element) -> Element:
    """Return the model in the file. Raises ValueError: there is none that can be served."""
    models = document.all(*MODELS)
    if len(models) == 1 and models[0].get("isScorable", "true") == "true":
        return models[0]
    others = document.all(*OTHERS, *MODELS)
    got = ", ".join(map(str, others)) or "none"
    raise ValueError(f"expected one model that can be scored, of {', '.join(MODELS)}; got {got}")


def active_fields(document: Element, model: Element) -> list[Element]:
    """Return the fields of the data dictionary that `model` takes. Raises ValueError."""
    known = {field.get("name"): field for field in document.need("DataDictionary").all("DataField")}
    active = [
        field.get("name")
        for field in model.need("MiningSchema").all("MiningField")
        if field.get("usageType", "active") == "active"
    ]
    if missing := [name for name in active if name not in known]:
        raise ValueError(f"MiningSchema: expected fields of the DataDictionary; got {missing[0]!r}")
    return [known[name] for name in active]


def target_field(document: Element, model: Element) -> Element | None:
    """Return the field that `model` predicts; None where the file does not say."""
    names = [
        field.get("name")
        for field in model.need("MiningSchema").all("MiningField")
        if field.get("usageType") in ("target", "predicted")
    ]
    fields = document.need("DataDictionary").all("DataField")
    return next((field for field in fields if names and field.get("name") == names[0]), None)


def classes_of(document: Element, model: Element) -> list[str]:
    """Return the classes of a classifier in the order of the file; empty for other models."""
    if model.get("functionName") != "classification":
        return []
    field = target_field(document, model)
    values = field.all("Value") if field is not None else []
    listed = [each.get("value") for each in values if each.get("property", "valid") == "valid"]
    return listed or sorted({each.get(_NAMED[each.tag]) for each in _naming(model)} - {""})


_NAMED = {
    **dict.fromkeys(("ScoreDistribution", "TargetValueCount"), "value"),
    **dict.fromkeys(("Node", "SimpleRule"), "score"),
    "RegressionTable": "targetCategory",
}
"""The attribute that names a class, of elements that do."""


def _naming(model: Element) -> list[Element]:
    """Return the elements that name classes, of a model whose target lists none."""
    return [each for each in model.walk() if each.tag in _NAMED]


def fill_in_pmml(source: Source, folder: Path) -> None:
    """Put inputs and outputs of a file of PMML into `source`, a `model.yaml` in `folder`.

    Raises:
        ConfigError: the file is no PMML, or holds no model that is served.
    """
    values, file = source.values, source.values.get("file")
    if values.get("format") != "pmml" or not isinstance(file, str):
        return
    if "inputs" in values and "outputs" in values:
        return
    try:
        document = read_document(folder / file)
        filled = tensors_of(document)
    except (OSError, ValueError) as err:
        raise ConfigError(f"{source.origin(('file',))}: file: {file!r}: {err}") from err
    for kind, tensors in filled.items():
        values.setdefault(kind, tensors)


def tensors_of(document: Element) -> dict[str, list[dict[str, Any]]]:
    """Return inputs and outputs as `model.yaml` lists them. Raises ValueError."""
    model = model_of(document)
    inputs: list[dict[str, Any]] = [
        {
            "name": field.get("name"),
            "dtype": "FP64" if field.get("dataType") in NUMBERS else "BYTES",
            "shape": [],
            "missing": "nan",
        }
        for field in active_fields(document, model)
    ]
    label = {"name": "label", "dtype": "BYTES", "shape": []}
    if classes := classes_of(document, model):
        scores = {"name": "probabilities", "dtype": "FP64", "shape": [len(classes)]}
        return {"inputs": inputs, "outputs": [label, scores | {"labels": classes}]}
    if model.get("functionName") == "clustering":
        return {"inputs": inputs, "outputs": [label]}
    return {"inputs": inputs, "outputs": [{"name": "value", **_NUMBER}, *_worked_out(model)]}


_NUMBER: dict[str, Any] = {"dtype": "FP64", "shape": []}


def _worked_out(model: Element) -> list[dict[str, Any]]:
    """Return the outputs that the file works out from the value of `model`."""
    output = model.find("Output")
    return [
        {"name": field.get("name"), **_NUMBER}
        for field in (output.all("OutputField") if output is not None else ())
        if field.get("feature") == "transformedValue"
        and field.get("isFinalResult", "true") == "true"
        and field.get("dataType") in NUMBERS
    ]
