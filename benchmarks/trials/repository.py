"""A model repository whose versions say in every answer what they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

WEIGHTS_BYTES = 8 << 20
"""Bytes of a version's weights: a small network of text or pictures."""

YAML = """\
format: python
class: code:Model
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4]}]
"""

CODE = '''\
"""Answers the first number of a row, and the number of this version."""

import os
import time
from pathlib import Path

import numpy as np

NUMBER = {number}
SECONDS = {seconds!r}
KIND = {kind!r}


class Model:
    """Sleeps as long as a device would take, then hangs or ends its process if it is to."""

    def load(self, device):
        """Read the weights, as a model would."""
        weights = Path(__file__).parent / "weights.bin"
        self.sum = float(np.fromfile(weights, "<f4").sum()) if weights.exists() else 0.0

    def predict(self, inputs):
        """Return rows of (first number, NUMBER, 0, 0)."""
        rows = inputs["x"]
        time.sleep(SECONDS)
        if KIND == "hangs" and rows.any():
            time.sleep(3600)
        if KIND == "crashes" and rows.any():
            os._exit(1)
        answer = np.zeros_like(rows)
        answer[:, 0], answer[:, 1] = rows[:, 0], NUMBER
        return {{"y": answer}}
'''


def write_version(
    repository: Path,
    model: str,
    version: int,
    number: int,
    seconds: float = 0.002,
    kind: str = "",
    weights: int = 0,
) -> None:
    """Write a version of `model` that answers `number`; the folder appears whole, or changes.

    Args:
        repository: a folder.
        model: name of the model.
        version: number of the version's folder.
        number: what the version answers.
        seconds: that a batch takes.
        kind: `hangs` or `crashes`, once a row is not 0; warm-ups are.
        weights: bytes of a file of weights.
    """
    folder = repository / model / str(version)
    is_new = not folder.exists()
    target = folder.with_name(f"new-{version}") if is_new else folder
    target.mkdir(parents=True, exist_ok=True)
    if weights:
        numbers = np.random.default_rng(number).random(weights // 4, dtype=np.float32)
        _write(target / "weights.bin", numbers.tobytes())
    code = CODE.format(number=number, seconds=seconds, kind=kind)
    _write(target / "code.py", code.encode())
    _write(target / "model.yaml", YAML.encode())
    if is_new:
        os.rename(target, folder)


def remove_version(repository: Path, model: str, version: int) -> None:
    """Remove a version."""
    shutil.rmtree(repository / model / str(version))


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)
