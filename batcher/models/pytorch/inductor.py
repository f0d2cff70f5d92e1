"""`compile: inductor`: modules compiled while they run (`torch.compile`).

TorchDynamo follows the first batch through Python, TorchInductor compiles what was computed, and
later batches run that code, as long as guards hold: the same dtypes, ranks and sizes. A size that
changes becomes free, so that warm-up ends with code for any number of rows:

    rows of the batch    1             2                      3, 4, 5 …
    compiled for         1 row alone   any number from 2 on   (nothing)

Compiling takes seconds. `progress` hears of every time: while the model loads, as of any step, and
later because a client waits for it.

A module that cannot be compiled for its first batch runs as it is. Where the compiler fails later,
on the second size or on a client's batch, that part of the module runs as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch

from batcher.core.error_text import summary
from batcher.core.own_folder import cache_home, make_private
from batcher.models.load_steps import COMPILING
from batcher.models.protocol import Progress

MAX_SHAPES = 4
"""Shapes of inputs that are told, for a line of the log that stays readable."""


class Inductor:
    """A module that is compiled as it runs, as far as it can be."""

    def __init__(self, module: Callable[..., Any], mode: str, progress: Progress) -> None:
        """Compile `module` with its first batch, in a `mode` of `torch.compile`. Inference thread.

        Raises:
            OSError: there is no folder for what is compiled.
        """
        # PyTorch's own choice is a folder in /tmp, where others could put code for this process.
        folder = cache_home() / "batcher" / "inductor"
        make_private(folder)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
        self._plain = module
        self._progress = progress
        inductor = import_module("torch._inductor")
        self._options: dict[str, Any] = dict(inductor.list_mode_options(mode))
        self._compiled: Callable[..., Any] = torch.compile(module, backend=self._compile)
        self._call = self._first

    def __call__(self, *inputs: torch.Tensor | None) -> Any:
        """Return what the module returns for `inputs`. Inference thread."""
        return self._call(*inputs)

    def _first(self, *inputs: torch.Tensor | None) -> Any:
        """Run the first batch, and find out whether the module can be compiled. Inference thread.

        What the module itself raises is raised.
        """
        try:
            result = self._compiled(*inputs)
        # Whatever stands in the compiler's way, unless it stands in the module's as well.
        except Exception as err:
            result = self._plain(*inputs)
            self._call = self._plain
            self._progress(f"not compiled: {summary(err)}. It is served as it is")
        else:
            self._call = self._compiled
        return result

    def _compile(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Return native code for `graph`, a part of the module. Inference thread."""
        tensors = [each for each in inputs if isinstance(each, torch.Tensor)]
        # Parameters come as inputs too.
        own = [each for each in tensors if not isinstance(each, torch.nn.Parameter)]
        shapes = ", ".join(str(list(each.shape)) for each in own[:MAX_SHAPES])
        self._progress(f"{COMPILING}, for inputs of {shapes or 'no shape'}")
        compiler = import_module("torch._inductor.compile_fx")
        compiled: Callable[..., Any]
        try:
            compiled = compiler.compile_fx(graph, inputs, config_patches=self._options)
        except Exception as err:
            if self._call == self._first:
                raise
            self._progress(f"not compiled: {summary(err)}. This part runs as it is")
            compiled = graph.forward
        return compiled
