"""The questions of `batcher init`, at most four: each has an option, and a default.

Where no person can answer, at the end of a pipe or in a script, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from batcher.app.target import declared


@dataclass(frozen=True, slots=True)
class Answers:
    """What the options say.

    Attributes:
        source: the model's file; None if it is not said, empty for none.
        kind: of a class to fill in; None if it is not said.
        inputs: each as `NAME=DTYPE[SHAPE]`.
        outputs: the same.
    """

    source: str | None = None
    kind: str | None = None
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()

    def asked(self, is_terminal: bool) -> dict[str, Any]:
        """Return all that is wanted; ask for what is not said, at a terminal. Raises ConfigError.

        With a file only the file is wanted: the file says the rest, or its error what to add.
        """
        source, kind = self.source, self.kind
        inputs, outputs = list(self.inputs), list(self.outputs)
        is_bare = kind is None and not inputs and not outputs
        if is_terminal and source is None and is_bare:
            source = _ask(
                "The model's file (net.onnx, net.pt, model.py:Class), if there is one", ""
            )
        if is_terminal and not source:
            kind = kind or _ask_kind()
            inputs = (
                inputs or _ask("Inputs, each NAME=DTYPE[SHAPE of one row]", "x=FP32[4]").split()
            )
            outputs = outputs or _ask("Outputs", "y=FP32[4]").split()
        return {
            "source": Path(source) if source else None,
            "kind": kind or "class",
            "inputs": declared(inputs, "--input") or None,
            "outputs": declared(outputs, "--output") or None,
        }


def _ask(question: str, default: str) -> str:
    answer: str = click.prompt(question, default=default, show_default=bool(default))
    return answer


def _ask_kind() -> str:
    kinds = click.Choice(["class", "module"])
    answer: str = click.prompt("A class with predict, or a torch.nn.Module", "class", type=kinds)
    return answer
