"""What a built-in step is: it says what it makes of given tensors, and makes it.

A built-in step works on whole arrays of one request. A small array is worked on the loop, a large
one on the CPU pool (`calls.py`), so no step holds up other requests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from batcher.config.pipelines.options import Options
from batcher.core.spec import Array, TensorSpec

COUNTS = ""
"""Name of the array that says how many rows each row has become, beside outputs and inputs."""


class BuiltIn(ABC):
    """One built-in step, with its options. Any thread.

    Attributes:
        options: the class of its options.
        inputs: names of its inputs, all of which it needs.
        spreads: whether each row becomes any number of rows. Then `run` returns as `COUNTS` how
            many.
        folds: whether rows that were spread become one row again. Then `run` gets as `COUNTS` how
            many.
        is_slow: whether it works on pictures, which takes too long for the loop.
    """

    options: ClassVar[type[Options]] = Options
    inputs: ClassVar[tuple[str, ...]] = ("values",)
    spreads: ClassVar[bool] = False
    folds: ClassVar[bool] = False
    is_slow: ClassVar[bool] = False

    @abstractmethod
    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return what the step makes of `inputs`, by the names of `self.inputs`.

        Raises:
            ValueError: it cannot be done; the message says what was expected and what came.
        """

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for the rows of one request, at least one row."""
