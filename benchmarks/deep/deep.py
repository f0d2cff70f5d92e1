"""The model of `benchmarks/gil.py`: many short operators.

Linear(784, 64), then 50 times Linear(64, 64) and ReLU.
"""

from __future__ import annotations

import torch


class Deep(torch.nn.Module):
    """A hundred operators a batch."""

    def __init__(self) -> None:
        """Make the layers with fixed weights."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers: list[torch.nn.Module] = [torch.nn.Linear(784, 64)]
            for _ in range(50):
                layers += [torch.nn.Linear(64, 64), torch.nn.ReLU()]
            self.layers = torch.nn.Sequential(*layers)
            with torch.no_grad():
                for layer in self.layers:
                    # so that fifty layers do not shrink everything to nothing
                    if isinstance(layer, torch.nn.Linear):
                        torch.nn.init.kaiming_normal_(layer.weight)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return 64 values a row."""
        found: torch.Tensor = self.layers(input)
        return found
