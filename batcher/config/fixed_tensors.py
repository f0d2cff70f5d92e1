"""Formats whose models all have the same inputs and outputs, which `model.yaml` need not list.

A model archive of TorchServe takes the body of a request as it came, with its media type, and gives
the body of the answer, with its media type.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from batcher.config.reading import Source

_TENSORS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "torchserve": {
        "inputs": [
            {"name": "body", "dtype": "BYTES", "shape": []},
            {"name": "content_type", "dtype": "BYTES", "shape": [], "default": ""},
        ],
        "outputs": [
            {"name": "prediction", "dtype": "BYTES", "shape": []},
            {"name": "content_type", "dtype": "BYTES", "shape": []},
        ],
    }
}


def fill_in_fixed(source: Source) -> None:
    """Put the tensors of the format that `source`, a `model.yaml`, names into its values."""
    for kind, tensors in _TENSORS.get(str(source.values.get("format")), {}).items():
        source.values.setdefault(kind, deepcopy(tensors))
