"""A small convolutional network that reads handwritten digits.

It must answer one grey 8 by 8 scan in well under a millisecond on a CPU and grow cheaply with the
batch, so that what a server adds around it can be seen. Three 3 by 3 convolutions and one linear
layer are enough for this size: 19,178 parameters (77 kB of float32) and about half a million
multiplications a scan.

There is no batch normalization. Its answers would depend on ``train()`` or ``eval()``, and three
layers learn well without it. Nothing here looks across the batch: a scan is scored the same
whichever scans it travels with, up to the rounding of the kernels that a batch size selects.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Scores a grey 8 by 8 scan against the ten digits.

    ``forward`` is what a server calls: probabilities. ``logits`` is what training calls, because
    the logarithm of a rounded softmax loses the small probabilities that the loss depends on.
    """

    def __init__(self) -> None:
        """Builds the layers with random weights.

        Load a state dict to get answers that mean something.
        """
        super().__init__()
        self.edges = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.strokes = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.parts = nn.Conv2d(32, 32, kernel_size=3, padding=1)
        self.digit = nn.Linear(32 * 4 * 4, 10)

    def logits(self, image: Tensor) -> Tensor:
        """Scores before normalization.

        Args:
            image: float32 [N, 1, 8, 8], ink in 0..1 (0 is paper, 1 is full ink).

        Returns:
            float32 [N, 10], unbounded, one column for each digit.
        """
        x = torch.relu(self.edges(image))
        x = torch.relu(self.strokes(x))
        # Halved only here: at 8 by 8 a stroke is one or two pixels wide, and an earlier pooling
        # would merge neighbours.
        x = torch.max_pool2d(x, kernel_size=2)
        x = torch.relu(self.parts(x))
        scores: Tensor = self.digit(x.flatten(start_dim=1))
        return scores

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities of the ten digits.

        Args:
            image: float32 [N, 1, 8, 8], ink in 0..1 (0 is paper, 1 is full ink).

        Returns:
            float32 [N, 10]; a row is not negative and adds up to 1, column ``d`` is the probability
            of digit ``d``.
        """
        return torch.softmax(self.logits(image), dim=1)
