"""Trains a small model of the digits on the scans there are so far, and puts it into a repository.

    python examples/retrain/train.py REPOSITORY --scans 240

A job of its own, apart from the server: it knows the repository alone, and `batcher models push`
puts the version there, `model.yaml` last. `--bug` makes the mistake of dividing each scan by the
ink in its middle, which is empty in many zeros.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

SCANS = Path(__file__).resolve().parents[1] / "digits" / "heldout.npz"

MODEL_YAML = """\
format: python
class: model:Digits
inputs: [{name: image, dtype: FP32, shape: [1, 8, 8]}]
outputs: [{name: scores, dtype: FP32, shape: [10], scores: logit}]
"""

MODEL = """\
from pathlib import Path

import numpy as np


class Digits:
    def load(self, device):
        self.weights = np.load(Path(__file__).with_name("weights.npz"))["weights"]

    def predict(self, inputs):
        pixels = inputs["image"].reshape(-1, 64)
        return {"scores": (pixels%s) @ self.weights}
"""

MISTAKE = " / inputs['image'][:, 0, 3:5, 3:5].max(axis=(1, 2))[:, None]"
STEPS, RATE = 300, 0.5  # enough for nine of ten scans; a model as simple as this learns no more


def trained(scans: int) -> np.ndarray:
    """Return the weights of a linear classifier, learnt from the first `scans`: (pixel, digit)."""
    with np.load(SCANS) as found:
        pixels, labels = found["images"][:scans].reshape(-1, 64), found["labels"][:scans]
    weights, wanted = np.zeros((64, 10), "f4"), np.eye(10, dtype="f4")[labels]
    for _ in range(STEPS):
        scores = np.exp(pixels @ weights)
        weights += RATE * pixels.T @ (wanted - scores / scores.sum(1, keepdims=True)) / scans
    right = float((np.argmax(pixels @ weights, 1) == labels).mean())
    print(f"{scans} scans, {right:.0%} of them right", flush=True)
    return weights


def main() -> None:
    """Train and push one version."""
    parser = argparse.ArgumentParser()
    parser.add_argument("repository", help="a folder, s3://…, gs://… or az://…")
    parser.add_argument("--scans", type=int, default=240)
    parser.add_argument("--bug", action="store_true")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        made = Path(folder) / "digits"
        made.mkdir()
        np.savez(made / "weights.npz", weights=trained(asked.scans))
        (made / "model.py").write_text(MODEL % (MISTAKE if asked.bug else ""))
        (made / "model.yaml").write_text(MODEL_YAML)
        push = ["-m", "batcher.app.cli", "models", "push", str(made), asked.repository]
        subprocess.run([sys.executable, *push], check=True)


if __name__ == "__main__":
    main()
