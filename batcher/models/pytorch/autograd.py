"""Whether PyTorch keeps what it needs to compute gradients while a batch runs.

Without gradients a batch takes less time and memory, so by default there are none. Some models
return gradients: forces are those of an energy, a saliency map is that of a score. For these,
`model.yaml` says `gradients: true`, and a model may call `torch.autograd.grad` in `forward` or
`predict`. The answers themselves are cut from the graph before they leave the inference thread.

    gradients    a batch runs in           requires_grad of parameters
    false        torch.inference_mode()    means nothing
    true         torch.enable_grad()       as the model has made them

A model that needs the gradients of its inputs alone saves time when the model sets
`requires_grad_(False)` on its parameters.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def batch_mode(gradients: bool) -> AbstractContextManager[Any]:
    """Return a context in which one batch runs, with or without `gradients`. Any thread."""
    return torch.enable_grad() if gradients else torch.inference_mode()
