"""What the rest of the server asks of a model, whatever its format.

Every format has a class that follows `Model`, in `pytorch/` or in `onnx.py`. The life of a model,
all on the inference thread of its worker:

    load ─► compile, capture (if set) ─► for each batch: allocate the inputs ─► predict

A worker calls a model through `CheckedModel` (`checked.py`), which checks every answer. The loop
never touches a model: the worker gives the loop a `LoadedModel`, the few facts that the loop needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.device_work import WorkCounts
from batcher.core.run_sizes import ANY_ROWS, RunSizes
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ModelLoadError
from batcher.models.kept_rows import KeptRows

Arrays = Mapping[str, Array]
"""Arrays by the names of their tensors; the first axis of each is the row."""

Hook = Callable[[Arrays], Mapping[str, Any]]
"""`preprocess` or `postprocess` of a model; `hook_contract.py` says what a hook must return."""


class RemoteHook(ABC):
    """A hook that another process runs, on the object that is loaded there."""

    @abstractmethod
    def run(self, values: Arrays, rows: int) -> tuple[dict[str, Array], int]:
        """Return what the hook makes of one request, and its number of rows.

        The other process has checked the contract. `rows` are those of the request, which
        `postprocess` needs to know. Raises BatcherError. Pool thread.
        """


Progress = Callable[[str], None]
"""Takes a text that says which step of loading a model begins. Called on the inference thread.

Once the model is loaded, it hears of what is compiled for a batch; see `load_steps.py`.
"""


class Running(Protocol):
    """A batch that a device runs."""

    def is_done(self) -> bool:
        """Return whether the result takes no wait. Inference thread."""

    def result(self) -> dict[str, Array]:
        """Wait for the batch and return its outputs, once; raises what `predict` would.

        Inference thread.
        """


class PartialOutputs(dict[str, Array]):
    """Outputs of a batch in which some rows failed by themselves, or some values are left out.

    Attributes:
        failed: errors of the rows that failed, by the row's index in the batch. In the place of a
            failed row the outputs hold a row that means nothing.
        left_out: names of values that the model returned and that are no outputs of it.
    """

    def __init__(
        self,
        outputs: Arrays,
        failed: dict[int, BaseException],
        left_out: tuple[str, ...] = (),
    ) -> None:
        """Hold `outputs` of every row and the errors of the rows that `failed`. Any thread."""
        super().__init__(outputs)
        self.failed = failed
        self.left_out = left_out


class FreshMemory:
    """Gives fresh memory for the inputs of every batch."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a writable, contiguous buffer for the input `name`. Inference thread."""
        return np.empty(shape, dtype)


class Model(Protocol):
    """A model as a worker runs it.

    Attributes:
        spec: name, version and tensors of the model.
        one_call: whether `predict` is one native call, which takes the interpreter lock once.
        max_rows: most rows that the model takes in one batch; None if it takes any number. Known
            once the model is loaded.
        run_sizes: with how many rows batches run. Known once the model is loaded.
        notes: what the operator should know of how the model was loaded, each a sentence.
        own_buffers: whether inputs must lie in buffers from `allocate` wherever they came from:
            the device reads faster from those, or code of an author may keep what it gets.
        preprocess: hook that turns one request's inputs into the inputs of `predict`; None if the
            model has no such hook. Runs on the CPU pool.
        postprocess: hook that turns one request's rows of the outputs of `predict` into the answer;
            None if the model has no such hook. Runs on the CPU pool.
        author: the object of an author's class whose `predict` or `forward` runs the batches; None
            for a model of another kind. Known once the model is loaded.
        sample: what an author's class has as its attribute `sample`, whatever that is; known once
            the model is loaded. See `sample.py`.
        overlaps: whether a batch may `begin` before the one before it has its result.
        native_bytes: bytes of weights in native code, which lie on the device beside the memory of
            PyTorch; known once the model is compiled.
        work: counts of what its batches ask of a GPU; None for a model that counts nothing. Known
            once the model is loaded.
        kept_rows: the rows that it keeps on its device and takes from there; None for a model that
            can do neither. Known once the model is loaded.
    """

    spec: ModelSpec
    one_call: bool
    max_rows: int | None
    run_sizes: RunSizes
    notes: tuple[str, ...]
    own_buffers: bool
    preprocess: Hook | None
    postprocess: Hook | None
    author: object
    sample: object
    overlaps: bool
    native_bytes: int
    work: WorkCounts | None
    kept_rows: KeptRows | None

    def load(self, device: str) -> None:
        """Read the model onto `device` (`cpu`, `cuda:0`). Once, first of all. Inference thread."""

    def compile(self, progress: Progress) -> None:
        """Compile the loaded model as its settings say, and report each step to `progress`.

        Raises:
            ModelLoadError: the model cannot be compiled; it runs as it did before.

        Inference thread.
        """

    def capture(
        self, sizes: tuple[int, ...], example: Callable[[int], Arrays], progress: Progress
    ) -> tuple[int, ...]:
        """Capture batches of the loaded model as CUDA graphs; return their sizes, ascending.

        None if graphs gain nothing. `sizes` are those that the model takes, ascending; none where
        it takes all. `example` returns a batch of as many rows.

        Raises:
            ModelLoadError: the model cannot be captured; it runs as it did before.
            Exception: whatever the model raises; likewise.

        Inference thread.
        """

    def operators(self, inputs: Arrays) -> int:
        """Return how many operators a batch of `inputs` takes; 0 if that is unknown.

        `inputs` are buffers from `allocate`. Each operator takes the interpreter lock once.

        Inference thread.
        """

    def training_note(self) -> str:
        """Return the note that parts of the model are in training mode; empty if none is.

        Inference thread.
        """

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a writable buffer for the input `name` of the next `predict`. Inference thread."""

    def overlapped(self) -> Model:
        """Return the loaded model as one whose batches overlap, if it can be. Inference thread."""

    def begin(self, inputs: Arrays) -> Running:
        """Begin one batch of a model that `overlaps`; else as `predict`. Inference thread."""

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run one batch, whose inputs are buffers from `allocate`.

        The outputs of a batch in which rows failed by themselves, or of which some values are no
        outputs, are PartialOutputs. Outputs need not have the declared dtypes: `fitting.py` casts
        what can be cast. Rows of unequal shapes are ragged (`core/ragged.py`). A model that uses
        the memory of its outputs again costs a copy of each output (see `checked.py`).

        Inference thread.
        """


class PlainModel:
    """What a model of any format has, where that format says nothing else."""

    one_call = False
    max_rows: int | None = None
    run_sizes = ANY_ROWS
    notes: tuple[str, ...] = ()
    own_buffers = False
    preprocess: Hook | None = None
    postprocess: Hook | None = None
    author: object = None
    sample: object = None
    overlaps = False
    native_bytes = 0
    work: WorkCounts | None = None
    kept_rows: KeptRows | None = None

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        self.spec = definition.spec
        self._definition = definition  # its modules live as long, and may be imported late
        self._settings = settings

    def compile(self, progress: Progress) -> None:
        """Refuse: nothing but a program of PyTorch can be compiled.

        Raises:
            ModelLoadError: always.

        Inference thread.
        """
        got = self._definition.format
        raise ModelLoadError(f"expected a model of format export or python to compile; got {got}")

    def capture(
        self, sizes: tuple[int, ...], example: Callable[[int], Arrays], progress: Progress
    ) -> tuple[int, ...]:
        """Capture nothing: only modules of PyTorch can be; the log says so. Inference thread."""
        return ()

    def overlapped(self) -> Any:
        """Return this model: what runs on the CPU has nothing to overlap. Inference thread."""
        return self

    def begin(self, inputs: Arrays) -> Running:
        """Refuse: this model does not overlap. Inference thread."""
        raise RuntimeError("batches of this model do not overlap")

    def training_note(self) -> str:
        """Return nothing: files of most formats are in their mode for good. Inference thread."""
        return ""


class LoadedModel(NamedTuple):
    """The facts of a loaded model that the loop needs. They cross from the worker to the loop.

    Attributes:
        one_call: whether a batch takes the interpreter lock of this process once or never.
        preprocess: hook of the model, for the CPU pool; None if the model has no such hook.
        postprocess: hook of the model, for the CPU pool; None if the model has no such hook.
        timings: seconds that warm-up took for a batch, by the rows of the batch.
        max_rows: most rows that the model takes in one batch, or that are worth sending; None if it
            takes any number.
        overflow_rows: rows of the batch that did not fit into the memory at warm-up; 0 if all did.
        sample: the first row of the model's sample, for a deep check; None without a sample.
        length_timings: seconds that warm-up took for a batch, by its rows and the elements of a
            row, where rows of different lengths are padded.
        run_sizes: as in Model.
        hands_over: whether `preprocess` or `predict` leaves something in the model that is read
            after it, for the same request.
        whole_requests: whether `predict` is the one that leaves or reads that, and so needs all
            rows of a request in one batch.
        kept_rows: as in Model; None if the model is in another process.
    """

    one_call: bool = False
    preprocess: Hook | RemoteHook | None = None
    postprocess: Hook | RemoteHook | None = None
    timings: Mapping[int, float] = {}
    max_rows: int | None = None
    overflow_rows: int = 0
    sample: Arrays | None = None
    length_timings: Mapping[tuple[int, int], float] = {}
    run_sizes: RunSizes = ANY_ROWS
    hands_over: bool = False
    whole_requests: bool = False
    kept_rows: KeptRows | None = None
