"""ResNet-50 (He et al., 2015) with random weights from a fixed seed: what counts is the speed.

A picture comes as bytes and is normalised on the device, so that a quarter of the bytes travel.
With `GPU_DRY` set the network has the same layers with an eighth of the channels, for processors.
"""

import os

import torch
from torch import nn
from torch.nn import functional

WIDTH = 8 if os.environ.get("GPU_DRY") else 64
BLOCKS = (1, 1, 1, 1) if os.environ.get("GPU_DRY") else (3, 4, 6, 3)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Make the block; a shortcut that changes the shape has a convolution of its own."""
        super().__init__()
        outputs = width * EXPANSION
        self.narrow = nn.Conv2d(inputs, width, 1, bias=False)
        self.narrow_norm = nn.BatchNorm2d(width)
        self.middle = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.middle_norm = nn.BatchNorm2d(width)
        self.widen = nn.Conv2d(width, outputs, 1, bias=False)
        self.widen_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        inner = functional.relu(self.narrow_norm(self.narrow(x)))
        inner = functional.relu(self.middle_norm(self.middle(inner)))
        return functional.relu(self.widen_norm(self.widen(inner)) + self.shortcut(x))


class ResNet50(nn.Module):
    """Pictures of 3 x 224 x 224 bytes to 1,000 scores."""

    def __init__(self) -> None:
        """Make the same weights every time."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
            self.stem_norm = nn.BatchNorm2d(WIDTH)
            blocks: list[nn.Module] = []
            inputs = WIDTH
            for stage, count in enumerate(BLOCKS):
                width = WIDTH * 2**stage
                for number in range(count):
                    blocks.append(Bottleneck(inputs, width, 2 if stage and not number else 1))
                    inputs = width * EXPANSION
            self.blocks = nn.Sequential(*blocks)
            self.head = nn.Linear(inputs, 1000)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the scores of pictures of bytes."""
        x = (pixels.to(self.stem.weight.dtype) - 118.0) / 58.0  # about ImageNet's mean and spread
        x = functional.relu(self.stem_norm(self.stem(x)))
        x = self.blocks(functional.max_pool2d(x, 3, 2, 1))
        return self.head(x.mean((2, 3))).float()
