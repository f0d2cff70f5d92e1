"""An encoder of BERT-base's shape with random weights from a fixed seed: what counts is the speed.

With `GPU_DRY` set the network has two narrow layers, for processors.
"""

import os

import torch
from torch import nn
from torch.nn import functional

TOKENS, WORDS = 128, 30_522
LAYERS, WIDTH, HEADS = (2, 64, 2) if os.environ.get("GPU_DRY") else (12, 768, 12)


class Layer(nn.Module):
    """One layer: every token looks at all tokens of its text, then each one for itself."""

    def __init__(self) -> None:
        """Make the layer."""
        super().__init__()
        self.attend = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.attended_norm = nn.LayerNorm(WIDTH)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the tokens' vectors of the next layer."""
        rows = hidden.shape[0]
        parts = self.attend(hidden).view(rows, TOKENS, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        seen = self.attended(seen.transpose(1, 2).reshape(rows, TOKENS, WIDTH))
        hidden = self.attended_norm(hidden + seen)
        return self.norm(hidden + self.narrow(functional.gelu(self.widen(hidden))))


class Bert(nn.Module):
    """128 tokens to the vector of the first one."""

    def __init__(self) -> None:
        """Make the same weights every time."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words = nn.Embedding(WORDS, WIDTH)
            self.positions = nn.Embedding(TOKENS, WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
            self.head = nn.Linear(WIDTH, 768)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors of texts of 128 tokens."""
        hidden = self.norm(self.words(ids) + self.positions.weight)
        return self.head(self.layers(hidden)[:, 0]).float()
