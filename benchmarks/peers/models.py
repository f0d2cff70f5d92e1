"""The benchmark models as a peer calls them: a batch in, a float32 batch out.

These variables of the environment say what a peer runs, and how:

    PEER_MODEL      name of the model
    PEER_MODELS     folder of the model; that of the benchmarks if it is not set
    PEER_INPUT      numpy's dtype of the input; float32 if it is not set
    PEER_DEVICE     `cpu`, or `cuda`, for a module; the processor if it is not set
    PEER_HALF       set: the weights are bfloat16
    PEER_COMPILE    set: the module goes through `torch.compile`
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

MODELS = Path(os.environ.get("PEER_MODELS", Path(__file__).resolve().parent.parent / "models"))
NAMES = ("echo", "fixed_cost", "mlp", "overload")
INPUT = np.dtype(os.environ.get("PEER_INPUT", "float32"))

Run = Callable[[np.ndarray], np.ndarray]


def chosen_model() -> Run:
    """Return the model that `PEER_MODEL` names, on one torch thread, as this server has it too."""
    torch.set_num_threads(1)
    name = os.environ["PEER_MODEL"]
    folder = MODELS / name / "1"
    file, _, kind = yaml.safe_load((folder / "model.yaml").read_text())["class"].partition(":")
    spec = importlib.util.spec_from_file_location(name, folder / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = getattr(module, kind)()
    return (
        _run_module(model)
        if isinstance(model, torch.nn.Module)
        else lambda batch: model.predict({"input": batch})["output"]
    )


def _run_module(module: torch.nn.Module) -> Run:
    device = torch.device(os.environ.get("PEER_DEVICE", "cpu"))
    module.eval().to(device, torch.bfloat16 if os.environ.get("PEER_HALF") else None)
    call = torch.compile(module) if os.environ.get("PEER_COMPILE") else module

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return call(torch.from_numpy(batch).to(device)).cpu().numpy()

    return run
