"""A torch module on pictures of bytes: batcher serve examples/models/torch_module.py."""

import torch

import batcher

# Pictures of any size come as PNG or JPEG, or as nested lists of 0 to 255.
PICTURE = {"dtype": "UINT8", "shape": [3, 32, 32], "image": {"mode": "rgb"}}
LABELS = {"dtype": "FP32", "shape": [3], "labels": ["red", "green", "blue"], "scores": "logit"}


@batcher.model(inputs={"picture": PICTURE}, outputs={"scores": LABELS})
class Colour(torch.nn.Module):
    def preprocess(self, inputs):  # one request, on a thread of the CPU pool
        return {"pixels": inputs["picture"].astype("float32") / 255}

    def forward(self, pixels):  # a batch of many requests
        return 8 * pixels.mean((2, 3))
