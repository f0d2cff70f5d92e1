"""A multi-layer perceptron with weights from a fixed seed."""

import torch


class Mlp(torch.nn.Sequential):
    """Linear(784, 512), ReLU, Linear(512, 512), ReLU, Linear(512, 10)."""

    def __init__(self) -> None:
        """Make the same weights every time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(
                torch.nn.Linear(784, 512),
                torch.nn.ReLU(),
                torch.nn.Linear(512, 512),
                torch.nn.ReLU(),
                torch.nn.Linear(512, 10),
            )
