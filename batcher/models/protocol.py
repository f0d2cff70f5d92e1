"""What a worker needs of a model, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from batcher.core.spec import Array, ModelSpec

Arrays = Mapping[str, Array]
Hook = Callable[[Arrays], Mapping[str, Any]]


class PartialOutputs(dict[str, Array]):
    """Outputs of a batch of which some rows failed by themselves.

    Attributes:
        failed: by the index of a row, why; what the outputs hold of it means nothing.
    """

    def __init__(self, outputs: Arrays, failed: dict[int, BaseException]) -> None:
        """Hold both."""
        super().__init__(outputs)
        self.failed = failed


class Model(Protocol):
    """A model as a worker runs it.

    Attributes:
        spec: its name, version and tensors.
        preprocess: turns one request's inputs into what `predict` takes, on the CPU pool; None if
            there is none.
        one_call: whether `predict` is one native call, and takes the interpreter lock but once.
        pinned: whether `allocate` gives memory of its own, from which the device reads faster than
            from any other.
        postprocess: turns one request's rows of outputs into what is answered, on the CPU pool;
            None if there is none.
    """

    spec: ModelSpec
    one_call: bool
    pinned: bool
    preprocess: Hook | None
    postprocess: Hook | None

    def load(self, device: str) -> None:
        """Read the model onto `device` (`cpu`, `cuda:0`). Once, before anything else.

        Inference thread.
        """

    def compile(self, progress: Callable[[str], None]) -> None:
        """Compile the loaded model to one native call; tell `progress` what is done.

        Inference thread.

        Raises:
            ModelLoadError: it cannot be compiled, and runs as it did before.
        """

    def operators(self) -> int:
        """Return how many operators a batch takes, each of which takes the interpreter lock.

        0 if unknown. Inference thread.
        """

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a writable buffer for the input `name` of the next `predict`. Inference thread."""

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run one batch: name to array, first axis the row, in and out. Inference thread.

        The inputs are buffers from `allocate`. The outputs are not touched again by the model; they
        are PartialOutputs if rows failed by themselves.
        """


Progress = Callable[[str], None]
"""Told in words what is being done."""


class Loaded(NamedTuple):
    """What the loop needs to know of a model that a worker has loaded.

    Attributes:
        one_call: whether a batch takes the interpreter lock of this process but once, or never.
        preprocess: the model's own, to run on the CPU pool; None if there is none.
        postprocess: likewise.
        timings: seconds that warm-up took for a batch, by its rows.
    """

    one_call: bool = False
    preprocess: Hook | None = None
    postprocess: Hook | None = None
    timings: Mapping[int, float] = {}
