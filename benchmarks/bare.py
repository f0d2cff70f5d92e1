"""The ceiling: a model called in a bare loop at one batch size, without a server."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from batcher import ModelSettings, load_model_definition
from batcher.config.model_file import ModelDefinition
from batcher.models.checked import CheckedModel
from batcher.models.loading import load_model


def load(
    folder: Path, max_batch_size: int, torch_threads: int = 1
) -> tuple[ModelDefinition, CheckedModel]:
    """Load and warm up version 1 of the model in `folder`."""
    definition = load_model_definition(folder.name, "1", folder / "1")
    settings = ModelSettings(max_batch_size=max_batch_size, torch_threads=torch_threads)
    return definition, load_model(definition, settings, lambda text: None)


def example_row(definition: ModelDefinition, seed: int = 0) -> dict[str, np.ndarray]:
    """Return one row of random inputs, name to array of shape (1, *row shape)."""
    random = np.random.default_rng(seed)
    return {
        tensor.name: random.random((1, *tensor.shape)).astype(tensor.datatype.numpy)
        for tensor in definition.spec.inputs
    }


def bare_rate(
    checked: CheckedModel, row: dict[str, np.ndarray], batch_size: int, seconds: float
) -> float:
    """Return the rows/s of `predict` alone, called again and again with batches of `batch_size`."""
    batch = {name: np.repeat(array, batch_size, axis=0) for name, array in row.items()}
    checked.model.predict(batch)
    calls, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        checked.model.predict(batch)
        calls += 1
    return calls * batch_size / elapsed


def bare_latency(checked: CheckedModel, row: dict[str, np.ndarray], calls: int) -> float:
    """Return the mean seconds of `predict` with one row."""
    checked.model.predict(row)
    began = time.perf_counter()
    for _ in range(calls):
        checked.model.predict(row)
    return (time.perf_counter() - began) / calls
