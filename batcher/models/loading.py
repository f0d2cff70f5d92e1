"""From a definition to a model that is loaded, warmed up and known to keep its contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from math import inf
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.error_text import message
from batcher.core.spec import Array, ModelSpec, TensorSpec, check_objects, check_outputs
from batcher.errors import BatcherError, ModelContractError, ModelLoadError
from batcher.models.protocol import Arrays, Hook, Model, PartialOutputs
from batcher.models.raised import as_a_model_may
from batcher.models.row_errors import RowErrors, non_finite_rows

Progress = Callable[[str], None]
"""Told in words what is being done."""

MANY_OPERATORS = 20
"""More than so many operators a batch are told of at start: under load each may wait for the
interpreter lock.
"""

_MODULES = {
    "python": "batcher.models.pytorch.python_class",
    "torchscript": "batcher.models.pytorch.torchscript",
    "export": "batcher.models.pytorch.export",
    "onnx": "batcher.models.onnx",
}


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


class CheckedModel:
    """A model whose every answer is checked, and kept safe from what the model does next.

    Attributes:
        timings: seconds that warm-up took for a batch, by its rows.

    A model that gives the same memory for each batch (a preallocated output) would change answers
    that are still being written. Warm-up finds out; until it has shown that outputs are fresh, they
    are copied.
    """

    def __init__(self, model: Model, finite_outputs: bool = False) -> None:
        """Wrap `model`, which is loaded.

        With `finite_outputs`, rows with NaN or infinity in their outputs fail.

        Of a model with `postprocess` clients get what that makes of the outputs, so that is looked
        at instead, by `hooks.py`.
        """
        self.model = model
        self._finite_outputs = finite_outputs
        self.spec = model.spec
        self.copies_outputs = True
        self.timings: dict[int, float] = {}

    def loaded(self) -> Loaded:
        """Return what the loop needs to know of it."""
        return Loaded(
            self.model.one_call, self.model.preprocess, self.model.postprocess, self.timings
        )

    def predict(
        self, collate: Callable[..., dict[str, Array]], rows: int
    ) -> tuple[dict[str, Array], RowErrors]:
        """Run one batch of `rows` rows that `collate` puts together.

        Return outputs, and rows that failed. Inference thread.

        Raises:
            ModelContractError: the outputs are not what the specification promises.
        """
        try:
            outputs = self.model.predict(collate(self.model.allocate))
        except BatcherError as err:
            if (raised := as_a_model_may(err)) is err:
                raise
            raise raised from err
        failed: RowErrors = {}
        if isinstance(outputs, PartialOutputs):
            failed = {row: as_a_model_may(error) for row, error in outputs.failed.items()}
        if self.model.postprocess is None:
            check_outputs(self.spec, outputs, rows)
            outputs = {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}
            if self._finite_outputs:
                failed = non_finite_rows(outputs, self.spec) | failed
        else:
            _check_rows(self.spec.name, outputs, rows)
        return (
            {name: array.copy() for name, array in outputs.items()}
            if self.copies_outputs
            else outputs
        ), failed


def load_model(
    definition: ModelDefinition, settings: ModelSettings, progress: Progress
) -> CheckedModel:
    """Load and warm up a model. Inference thread.

    Args:
        definition: what it is.
        settings: how it is run.
        progress: told what is being done.

    Raises:
        ModelLoadError: it cannot be loaded, or fails on its warm-up; the message names the model
            and the reason.
    """
    try:
        progress("loading")
        model = make_model(definition, settings)
        device = _device(settings.devices[0])
        if device != "cpu":
            import_module("torch").cuda.set_device(
                device
            )  # of this thread, for whatever asks for no device by name
        model.load(device)
        if settings.compile != "none":
            _compile(model, progress)
        checked = CheckedModel(model, settings.finite_outputs)
        if settings.warmup:
            warm_up(checked, settings.max_batch_size, progress)
        return checked
    except (
        BaseException
    ) as err:  # whatever a model's own code raises is the reason that it cannot be served
        raise _load_error(definition, err) from err


def make_model(definition: ModelDefinition, settings: ModelSettings) -> Any:
    """Return the model of `definition`, not loaded yet. Any thread."""
    return import_format(definition).MODEL(definition, settings)


def import_format(definition: ModelDefinition) -> ModuleType:
    """Import what loads models of the format of `definition`, and with it PyTorch or onnxruntime. Any thread."""
    return import_module(_MODULES[definition.format])


def make_hooks(
    definition: ModelDefinition, settings: ModelSettings
) -> tuple[Hook | None, Hook | None]:
    """Return `preprocess` and `postprocess` of a model that is loaded in another process.

    Any thread.

    Its class is imported and made here for them, and neither loaded nor given weights.

    Raises:
        ModelLoadError: that fails; the message names the model and the reason.
    """
    try:
        made = make_model(definition, settings).make()
        return getattr(made, "preprocess", None), getattr(made, "postprocess", None)
    except BaseException as err:
        raise _load_error(definition, err) from err


def _load_error(definition: ModelDefinition, error: BaseException) -> ModelLoadError:
    text, kind = message(error), type(error).__name__
    reason = (
        text if text and isinstance(error, BatcherError) else f"{kind}: {text}" if text else kind
    )
    return ModelLoadError(
        f"model {definition.spec.name!r} version {definition.spec.version}: {reason}"
    )


def compile_ahead(definition: ModelDefinition, settings: ModelSettings) -> Path:
    """Return the compiled package of a model, made now if there is none. Any thread.

    Raises:
        ModelLoadError: it cannot be compiled; the message says why.
    """
    package: Path = import_module("batcher.models.pytorch.aoti").find_or_compile(
        definition, settings, _device(settings.devices[0])
    )
    return package


def _compile(model: Model, progress: Progress) -> None:
    try:
        model.compile(progress)
    except ModelLoadError as err:
        progress(f"not compiled: {err}. It is served as it is")


def warmup_sizes(max_batch_size: int) -> list[int]:
    """Return 1, the largest batch, and the powers of two between them, ascending."""
    sizes = {1, max_batch_size}
    size = 2
    while size < max_batch_size:
        sizes.add(size)
        size *= 2
    return sorted(sizes)


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    device: str = import_module("batcher.models.pytorch.module").choose_device(wanted)
    return device


def warm_up(checked: CheckedModel, max_batch_size: int, progress: Progress) -> None:
    """Run a loaded model on blank rows at each warm-up size, and learn whether its outputs are fresh memory. Inference thread.

    Raises:
        ModelLoadError: it fails on them, or its outputs are not what its specification promises.
    """
    if unsized := unsized_inputs(checked.spec):
        progress(f"warm-up skipped: {unsized}")
        return
    earlier: list[Array] = []
    shared = False
    sizes = warmup_sizes(max_batch_size)
    twice = [
        size for size in sizes for _ in range(2)
    ]  # the first time is that of whatever is made once
    for size in (*twice, sizes[-1]):  # the largest more often, so that memory given again is seen
        progress(f"warming up, batch size {size}")
        try:
            inputs = _blank_inputs(checked.model, size)
            began = perf_counter()
            outputs = checked.model.predict(inputs)
            checked.timings[size] = min(perf_counter() - began, checked.timings.get(size, inf))
            _check_warmup(checked, outputs, size)
        except (Exception, SystemExit) as err:
            raise ModelLoadError(
                f"warm-up with batch size {size} failed: {type(err).__name__}: {message(err)}"
            ) from err
        shared = shared or any(
            np.may_share_memory(new, old) for new in outputs.values() for old in earlier
        )
        earlier += outputs.values()
    checked.copies_outputs = shared
    operators = checked.model.operators()
    if operators > MANY_OPERATORS:
        progress(
            f"hint: {operators} operators a batch, each waiting for the interpreter lock: try "
            "`compile: aoti`"
        )


def _check_warmup(checked: CheckedModel, outputs: Arrays, rows: int) -> None:
    if checked.model.postprocess is not None:
        _check_rows(checked.spec.name, outputs, rows)
        outputs = {
            name: np.asarray(value) for name, value in checked.model.postprocess(outputs).items()
        }
    check_outputs(checked.spec, outputs, rows)


def unsized_inputs(spec: ModelSpec) -> str:
    """Return why there are no blank rows for the model `spec`, empty if there are."""
    free = [
        tensor.name for tensor in spec.inputs if tensor.free_axes and tensor.warmup_shape is None
    ]
    return f"no warmup_shape for the free axes of {', '.join(free)}" if free else ""


def blank_rows(spec: ModelSpec, rows: int) -> dict[str, Array]:
    """Return inputs of zeros and empty texts for the model `spec`, whose inputs are sized.

    Any thread.
    """
    return {tensor.name: _blank(tensor, rows) for tensor in spec.inputs}


def _blank_inputs(model: Model, rows: int) -> dict[str, Array]:
    blank = blank_rows(model.spec, rows)
    prepared = model.preprocess(blank) if model.preprocess is not None else blank
    inputs = {}
    for name, value in prepared.items():
        array = np.asarray(value)
        inputs[name] = model.allocate(name, array.shape, array.dtype)
        inputs[name][...] = array
    return inputs


def _blank(tensor: TensorSpec, rows: int) -> Array:
    array: Array = np.zeros((rows, *(tensor.warmup_shape or tensor.shape)), tensor.datatype.numpy)
    if tensor.datatype.name == "BYTES":
        array.fill(b"")
    return array


def _check_rows(name: str, outputs: dict[str, Any] | Arrays, rows: int) -> None:
    if not outputs:
        raise ModelContractError(f"model {name!r}: expected outputs; got none")
    for output, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            got = len(array) if array.ndim else "a scalar"
            raise ModelContractError(
                f"model {name!r}: {rows} rows in, {got} rows out in output {output!r}"
            )
        if array.dtype.hasobject:
            check_objects(array, f"model {name!r}: output {output!r}")
