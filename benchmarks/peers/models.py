"""The benchmark models as a peer calls them: a float32 batch in, a float32 batch out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

MODELS = Path(__file__).resolve().parent.parent / "models"
CLASSES = {"echo": "Echo", "fixed_cost": "FixedCost", "mlp": "Mlp", "overload": "Overload"}

Run = Callable[[np.ndarray], np.ndarray]


def chosen_model() -> Run:
    """Return the model that `PEER_MODEL` names, on one torch thread, as this server has it too."""
    torch.set_num_threads(1)
    name = os.environ["PEER_MODEL"]
    spec = importlib.util.spec_from_file_location(name, MODELS / name / "1" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = getattr(module, CLASSES[name])()
    return (
        _run_module(model)
        if isinstance(model, torch.nn.Module)
        else lambda batch: model.predict({"input": batch})["output"]
    )


def _run_module(module: torch.nn.Module) -> Run:
    module.eval()

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(batch)).numpy()

    return run
