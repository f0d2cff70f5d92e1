"""One model of a real library: what belongs into its folder, and what the library itself answers.

The folders lie in `folders/`, as a user would write them: a `model.yaml` and at most a few lines of
Python. The files that a library makes (weights, graphs, pickles) are made anew for each run, with
random weights from a fixed seed, or are copied from the library's own package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from batcher.core.spec import Array

FOLDERS = Path(__file__).parent / "folders"

Rows = Mapping[str, Sequence[Any]]
"""Outputs by their names, each a sequence with one element for each row."""


@dataclass(frozen=True)
class Reference:
    """Requests for a model, and the library that answers them without a server.

    Attributes:
        inputs: some rows, all different; the first axis of each array is the row.
        answer: calls the library on such inputs.
    """

    inputs: dict[str, Array]
    answer: Callable[[dict[str, Array]], Rows]


@dataclass(frozen=True)
class Case:
    """A model of a real library.

    Attributes:
        name: name of its folder.
        libraries: modules that the model needs.
        prepare: writes the model's files beside its `model.yaml`.
        ragged: whether rows of one output differ in length, so each request has one row.
    """

    name: str
    libraries: tuple[str, ...]
    prepare: Callable[[Path], Reference]
    ragged: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the model, without the files that its library makes."""
        return FOLDERS / self.name

    def unusable(self) -> str:
        """Return why the model cannot be served here; empty if it can.

        A library may be there and not fit the rest: a torchvision for CUDA beside a PyTorch for
        the CPU raises when it is imported.
        """
        for library in self.libraries:
            try:
                import_module(library)
            # Whatever a library raises when it is imported, it cannot be used.
            except Exception as err:
                return f"{library} cannot be imported (`make models` installs it): {err}"
        return ""
