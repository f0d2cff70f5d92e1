"""Fifty narrow layers: hardly any work, and a hundred launches of a kernel."""

import torch


class Mlp50(torch.nn.Sequential):
    """50 times Linear(256, 256) and ReLU."""

    def __init__(self) -> None:
        """Make the same weights every time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = ((torch.nn.Linear(256, 256), torch.nn.ReLU()) for _ in range(50))
            super().__init__(*(part for layer in layers for part in layer))
