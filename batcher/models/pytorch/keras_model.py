"""Format `keras`: a `.keras` file of Keras 3, run on its PyTorch backend.

On that backend a model of Keras is a `torch.nn.Module`. So it runs on the inference thread and the
device of any other module, and its rows share batches. Keras asks for its backend once, when it is
imported. A program that has imported it with another backend cannot serve such models.

A file may hold a Lambda layer, whose code is a pickle: it is read only with `trusted: true`. It is
a zip, whose list is looked through before Keras reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from batcher.core.error_text import brief_names
from batcher.errors import ModelLoadError
from batcher.models.device_errors import memory_text
from batcher.models.pytorch.module import TorchModule
from batcher.models.zip_entries import check_entries

SAFE = (3, 14)
"""The first version of Keras that reads a file which is not trusted. Earlier ones run code that is
hidden in a file, or read other files of the machine, also in their safe mode (CVE-2025-1550,
CVE-2026-1462, CVE-2026-1669).
"""


_ASKED = re.compile(r"(?i)allocate ([\d.,]+ ?[a-z]*)")
"""How PyTorch and numpy say what they were asked for: `400000 bytes`, `37.25 GiB`."""


def keras_on_torch() -> Any:
    """Return the module of Keras. Raises ModelLoadError: it runs on another backend. Any thread."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    if keras.config.backend() != "torch":
        raise ModelLoadError(
            f"expected Keras on PyTorch; got {keras.config.backend()}: set KERAS_BACKEND=torch "
            "where the server starts"
        )
    return keras


def load_keras(file: Path, trusted: bool) -> Any:
    """Return the model in a file, for inference alone.

    Raises:
        ModelLoadError: Keras runs on another backend, or the file is not `trusted` and holds code
            or Keras is too old, or the file is no zip of files that a model may have.

    Inference thread.
    """
    keras = keras_on_torch()
    if not trusted:
        _check_version(keras.__version__)
    _check_archive(file)
    try:
        with fitting_memory(file):
            return keras.saving.load_model(str(file), compile=False, safe_mode=not trusted)
    except ValueError as err:
        if trusted or "arbitrary code" not in str(err):
            raise
        raise ModelLoadError(
            f"expected `trusted: true`; got {file.name} with a Lambda layer, whose code is a "
            "pickle and runs when it is read: set `trusted: true` for this model if you know who "
            "made the file"
        ) from err


@contextmanager
def fitting_memory(file: Path) -> Iterator[None]:
    """Say of layers that do not fit into memory which `file` asks for them.

    A file of a few bytes may ask for any number of units. Raises ModelLoadError. Any thread.
    """
    try:
        yield
    except Exception as err:
        text = memory_text(err)
        if not text:
            raise
        asked = _ASKED.search(text)
        raise ModelLoadError(
            f"expected layers that fit into memory; got {file.name}, of {file.stat().st_size:,} "
            f"bytes, whose layers ask for {asked[1] if asked else 'more'}: serve it where there "
            "is as much, or save a smaller model"
        ) from err


def _check_version(version: str) -> None:
    """Check that Keras in this `version` runs no code of a file. Raises ModelLoadError."""
    if tuple(map(int, version.split(".")[:2])) < SAFE:
        raise ModelLoadError(
            f"expected Keras {SAFE[0]}.{SAFE[1]} or later; got {version}, which may run code that "
            "a file hides: install a later one, or set `trusted: true` for this model if you know "
            "who made the file"
        )


def _check_archive(file: Path) -> None:
    """Check what the list of the zip says. Raises ModelLoadError. Any thread."""
    try:
        with ZipFile(file) as archive:
            check_entries(archive.infolist(), file)
    except (BadZipFile, OSError, NotImplementedError) as err:
        raise ModelLoadError(
            f"{file.name}: expected a file that `model.save` of Keras 3 has made, a zip; got {err}"
        ) from err


class KerasModel(TorchModule):
    """A model of Keras."""

    own_buffers = True  # layers of an author's own may keep what they get

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the file onto `device`. Inference thread."""
        keras = keras_on_torch()
        named = "cpu" if device.type == "cpu" else str(device)
        with keras.device(named):
            model = load_keras(self._definition.file, self._settings.trusted)
        with fitting_memory(self._definition.file):
            model.to(device)
        self.precision.with_weights(model.eval())
        self._check_names([tensor.name for tensor in model.inputs])

        def call(*tensors: torch.Tensor) -> Any:
            # Keras would move the inputs to a device of its own choice.
            with keras.device(named):
                return model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)

        return self.precision.around(call, self.spec)

    def _check_names(self, known: list[str]) -> None:
        """Raise ModelLoadError if the inputs are not those of the model, in their order."""
        names = [tensor.name for tensor in self.spec.inputs]
        if names != known:
            raise ModelLoadError(
                f"inputs: expected those of the model in their order, {brief_names(known)}; got "
                f"{brief_names(names)}"
            )

    def operators(self, inputs: Any) -> int:
        """Return 0: the number is unknown. Inference thread."""
        return 0


MODEL = KerasModel
