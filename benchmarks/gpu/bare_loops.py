"""The ceilings: a model in a bare loop, with its copies and without.

predict    the model as the server has it, copies to the device and back included
device     the module alone on inputs that lie on the device; on CUDA one replay of a graph
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from batcher.models.checked import CheckedModel
from batcher.models.version_code.importing import import_from_folder
from benchmarks.gpu.figures import DEVICE
from benchmarks.gpu.served_models import Served

Rows = Mapping[str, "np.ndarray[Any, Any]"]

WARM_CALLS = 3
"""Calls before a graph is captured: libraries choose their algorithms in the first ones."""


def random_rows(served: Served, count: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return `count` rows of inputs of a model, all different."""
    random = np.random.default_rng(seed)
    rows = {}
    for tensor in served.definition.spec.inputs:
        shape, dtype = (count, *tensor.shape), tensor.datatype.numpy
        is_float = dtype.kind == "f"
        values = random.standard_normal(shape) if is_float else random.integers(0, 256, shape)
        rows[tensor.name] = values.astype(dtype)
    return rows


def predict(checked: CheckedModel, rows: Rows) -> dict[str, np.ndarray[Any, Any]]:
    """Run one batch as a worker does, and return its outputs."""

    def collate(allocate: Callable[..., Any]) -> dict[str, Any]:
        inputs = {}
        for name, array in rows.items():
            inputs[name] = allocate(name, array.shape, array.dtype)
            inputs[name][...] = array
        return inputs

    outputs, _ = checked.predict(collate, len(next(iter(rows.values()))))
    return outputs


def seconds_each(call: Callable[[], object], seconds: float) -> float:
    """Return the mean seconds of `call`, made again and again for so long."""
    for _ in range(WARM_CALLS):
        call()
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        call()
        count += 1
    return elapsed / count


def device_call(served: Served, count: int) -> Callable[[], None]:
    """Return a call that runs `count` rows on the device, and waits for them.

    In 16 bits where the model's settings say so.
    """
    definition = served.definition
    file, _, name = str(definition.entry).partition(":")
    module = getattr(import_from_folder(definition, file), name)().eval().to(DEVICE)
    if served.settings.get("dtype") == "bf16" and "dtype" in served.known_settings:
        module = module.to(torch.bfloat16)
    inputs = [torch.from_numpy(rows).to(DEVICE) for rows in random_rows(served, count).values()]
    if "channels_last" in served.known_settings:
        module = module.to(memory_format=torch.channels_last)
        inputs = [each.contiguous(memory_format=torch.channels_last) for each in inputs]

    def run() -> None:
        with torch.inference_mode():
            module(*inputs)

    return captured(run) if DEVICE == "cuda" else run


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """Return a call that replays what `run` does on CUDA as one graph, and waits for its end."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay
