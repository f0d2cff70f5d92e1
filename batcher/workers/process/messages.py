"""What parent and child say to each other.

| to the child, in this order | the child answers |
|---|---|
| `Prepare` | nothing |
| `Load` | `LoadProgress` and `LoadPaused`, any number of times, then `LoadDone` or `LoadFailed` |
| `RunBatch`, any number of times | `BatchDone` or `BatchFailed`, in the order of the batches |
| None | nothing: the child ends |

Messages are small and pickled: both sides are the same program. Arrays lie in slots. Hooks have
connections of their own (`hook_server.py`), and there arrays are pickled too.
"""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.connection import Connection
from pickle import HIGHEST_PROTOCOL, dumps
from typing import NamedTuple

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.device_work import DeviceWork
from batcher.core.run_sizes import RunSizes
from batcher.core.spec import Array
from batcher.models.protocol import LoadedModel, RemoteHook
from batcher.workers.process.described_error import DescribedError
from batcher.workers.shared_memory.packing import ArrayPlace

PREPROCESS, POSTPROCESS = "preprocess", "postprocess"


class Prepare(NamedTuple):
    """To the child: import what the model needs, and wait for `Load`, or for None to end.

    Attributes:
        definition: what the model is.
        settings: how the model is run.
    """

    definition: ModelDefinition
    settings: ModelSettings


class Load(NamedTuple):
    """To the child: load the model."""


class RunBatch(NamedTuple):
    """To the child: run one batch.

    Attributes:
        number: number of the batch, which the answer repeats.
        slot: index of the slot that the inputs lie in.
        table: where each input lies in the slot.
        end: bytes of the slot that the inputs take.
        rows: rows of the batch.
    """

    number: int
    slot: int
    table: list[ArrayPlace]
    end: int
    rows: int


class LoadProgress(NamedTuple):
    """From the child: what it does while the model loads.

    Attributes:
        text: that, in words.
    """

    text: str


class LoadPaused(NamedTuple):
    """From the child: the load waits for another process, and others may load."""


class LoadDone(NamedTuple):
    """From the child: the model is loaded.

    Attributes:
        timings: seconds that warm-up took for a batch, by its rows.
        hooks: names of the hooks that the model has. If there are any, the descriptor of a socket
            follows, through which the parent opens connections (`hook_server.py`).
        max_rows: as in LoadedModel.
        overflow_rows: as in LoadedModel.
        sample: as in LoadedModel.
        length_timings: as in LoadedModel.
        run_sizes: as in LoadedModel.
        hands_over: as in LoadedModel.
        whole_requests: as in LoadedModel.
    """

    timings: Mapping[int, float]
    hooks: tuple[str, ...]
    max_rows: int | None
    overflow_rows: int
    sample: Mapping[str, Array] | None
    length_timings: Mapping[tuple[int, int], float]
    run_sizes: RunSizes
    hands_over: bool
    whole_requests: bool

    def loaded(self, hooks: Mapping[str, RemoteHook]) -> LoadedModel:
        """Return the facts that the loop needs, with the way to each of the `hooks`. Any thread."""
        return LoadedModel(
            one_call=True,  # no batch takes the interpreter lock of this process
            preprocess=hooks.get(PREPROCESS),
            postprocess=hooks.get(POSTPROCESS),
            timings=self.timings,
            max_rows=self.max_rows,
            overflow_rows=self.overflow_rows,
            sample=self.sample,
            length_timings=self.length_timings,
            run_sizes=self.run_sizes,
            hands_over=self.hands_over,
            whole_requests=self.whole_requests,
        )


class LoadFailed(NamedTuple):
    """From the child, which ends then: the model cannot be loaded.

    Attributes:
        reason: why, in words.
        stage: the `stage` of the ModelLoadError.
    """

    reason: str
    stage: str


class BatchDone(NamedTuple):
    """From the child: a batch has run.

    Attributes:
        number: number of the batch.
        table: where each output lies in the slot of the batch, behind the inputs.
        end: bytes of the slot that inputs and outputs take.
        failed: why single rows failed, by the index of the row.
        work: as in Outcome.
    """

    number: int
    table: list[ArrayPlace]
    end: int
    failed: dict[int, DescribedError]
    work: DeviceWork | None


class BatchFailed(NamedTuple):
    """From the child: a batch failed.

    Attributes:
        number: number of the batch.
        error: why.
    """

    number: int
    error: DescribedError


class RunHook(NamedTuple):
    """To a hook server: run one hook for one request.

    Attributes:
        hook: PREPROCESS or POSTPROCESS.
        values: name to array, which the hook is called with.
        rows: rows of the request.
    """

    hook: str
    values: dict[str, Array]
    rows: int


class HookDone(NamedTuple):
    """From a hook server, which sends a DescribedError where the hook failed.

    Attributes:
        values: name to array, which the hook has made.
        rows: rows of these arrays, or of the request.
    """

    values: dict[str, Array]
    rows: int


def send(connection: Connection, message: object) -> None:
    """Send `message`, which `connection.recv` returns at the other end.

    The pickler of `connection.send` is twice as slow.

    Raises:
        OSError: there is nobody at the other end.

    Any one thread.
    """
    connection.send_bytes(dumps(message, HIGHEST_PROTOCOL))
