"""A vision transformer of transformers, with the image processor that belongs to it."""

from pathlib import Path

import torch
from transformers import ViTForImageClassification, ViTImageProcessor

HERE = Path(__file__).parent


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.processor = ViTImageProcessor.from_pretrained(HERE)
        self.net = ViTForImageClassification.from_pretrained(HERE)

    def preprocess(self, inputs):
        return dict(self.processor(list(inputs["image"]), return_tensors="np"))

    def forward(self, pixel_values):
        return self.net(pixel_values)
