"""Trains the two networks of the cascade on scikit-learn's bundled scans of digits.

    python examples/cascade/train.py
    batcher serve --set model_repository=examples/cascade/models

A small network is sure of most scans, and a large one gets the others: `digits_cascade` is the
pipeline of both. A stratified fifth (360 scans) is held out and looked at once, at the end. Both
networks are written as TorchScript, so a batch is one native call.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

# scikit-learn ships no types
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]  # as above
from torch import Tensor, nn
from torch.nn import functional

MODELS = Path(__file__).resolve().parent / "models"
SURE = 0.9  # as `when` in models/digits_cascade/1/model.yaml
SEED, BATCH, PEAK_RATE = 0, 64, 4e-3
CHANNELS = 64  # of the large network: some hundred times the work of the small one


def small() -> nn.Module:
    """Return a network of one hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))


def large() -> nn.Module:
    """Return a network of four convolutions."""
    layers: list[nn.Module] = []
    for inputs in (1, CHANNELS, CHANNELS, CHANNELS):
        layers += [nn.Conv2d(inputs, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(CHANNELS * 4, 10)
    )


class Probabilities(nn.Module):
    """A network whose answers are probabilities."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap `network`, which gives logits."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [N, 10] for float32 [N, 1, 8, 8]."""
        return functional.softmax(self.network(image), 1)


def scans() -> list[Any]:
    """Return images to learn from and held out, then the labels of both."""
    bundled = load_digits()
    images = (bundled.images[:, None] / 16).astype(np.float32)
    parts = train_test_split(
        images, bundled.target, test_size=360, stratify=bundled.target, random_state=SEED
    )
    return [torch.from_numpy(part) for part in parts]


def moved(images: Tensor) -> Tensor:
    """Return `images`, each turned and shifted a little."""
    angle = (torch.rand(len(images)) - 0.5) * 0.35
    shift = (torch.rand(len(images), 2) - 0.5) * 0.25
    rows = [torch.stack([angle.cos(), -angle.sin(), shift[:, 0]], 1)]
    rows.append(torch.stack([angle.sin(), angle.cos(), shift[:, 1]], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Return `network` after `epochs` of training."""
    optimizer = torch.optim.AdamW(network.parameters())
    steps = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, epochs=epochs, steps_per_epoch=steps
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(BATCH):
            scores = network.train()(moved(images[chosen]))
            loss = functional.cross_entropy(scores, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch says no types
            optimizer.step()
            schedule.step()
    return Probabilities(network).eval()


def main() -> None:
    """Train both, write them, and print how right they and the cascade are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--epochs", type=int, default=20, help="of the large network")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    images, held_out, labels, wanted = scans()
    found = {}
    for name, network, epochs in (
        ("digits_small", small(), 3 * options.epochs),
        ("digits_large", large(), options.epochs),
    ):
        trained = train(network, images, labels, epochs)
        with torch.no_grad():
            traced = torch.jit.trace(trained, held_out)  # type: ignore[no-untyped-call]  # as above
            script = torch.jit.freeze(traced)
            found[name] = trained(held_out)
        folder = options.models / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        script.save(str(folder / "model.pt"))
    sure = found["digits_small"].max(1).values >= SURE
    found["digits_cascade"] = torch.where(sure[:, None], *found.values())
    for name, scores in found.items():
        print(f"{name}: {(scores.argmax(1) == wanted).float().mean():.2%} of 360 scans are right")
    print(f"the large network gets {(~sure).float().mean():.1%} of the scans")


if __name__ == "__main__":
    main()
