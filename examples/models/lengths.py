"""Texts of different lengths in one model: batcher serve examples/models/lengths.py."""

import numpy as np
import torch

import batcher


@batcher.model(inputs={"text": "BYTES"}, outputs={"embedding": "FP32[8]"})
class Embedder(torch.nn.EmbeddingBag):
    sample = {"text": ["a short text", "another one"]}

    def __init__(self):
        super().__init__(256, 8, mode="mean", padding_idx=0)

    def preprocess(self, inputs):  # texts of 1 to 16 letters share batches, 17 to 64, and so on
        longest = max(map(len, inputs["text"]))
        ids = np.zeros((len(inputs["text"]), 16 if longest <= 16 else 64), np.int64)
        for row, text in zip(ids, inputs["text"], strict=True):
            row[: len(text)] = list(text[:64])
        return {"input": ids}
