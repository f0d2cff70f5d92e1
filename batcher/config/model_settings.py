"""How one model is run and batched: `defaults` and each entry of `models` in `config.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field

from batcher.config.reading import Integer, Number
from batcher.config.values import (
    MIB,
    Bytes,
    Count,
    Milliseconds,
    MillisecondsOrNone,
    Seconds,
    SecondsOrNone,
    Section,
)


def _joined(value: object) -> object:
    """Return a list of devices as the text that names them all."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


Devices = Annotated[
    str, BeforeValidator(_joined), Field(pattern=r"^(auto|cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*$")
]


class ModelSettings(Section):
    """How one model is run and batched.

    Attributes:
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:n`; of a list, each instance
            takes the next in turn.
        worker: `thread` runs the model in this process, `process` in a process of its own, which is
            started again when it ends.
        instances: how often the model is loaded; all take their batches from one queue.
        load_timeout_s: seconds after which a load (construction, `load`, compilation, warm-up)
            fails; 0 waits for ever.
        watchdog_s: seconds after which a batch is given up for hung.
        retry_on_crash: whether a batch that a worker's end interrupted is run once more, which may
            run a request twice.
        torch_threads: threads inside one operator; None shares the cores among the models.
        max_batch_size: most rows of a batch.
        policy: `eager` never waits; `delay` waits for a full batch up to `max_delay_ms`; `slo` is
            `eager` with `slo_ms`.
        slo_ms: deadline of a request that names none under `slo`, in milliseconds after its
            arrival.
        max_delay_ms: longest wait of the oldest request under `delay`, in milliseconds.
        preferred_batch_sizes: row counts that `delay` sends without waiting longer.
        pipeline_depth: batches a worker may hold; 2 keeps the next one ready under saturation.
        max_queue_rows: most rows that may wait.
        max_queue_bytes: most bytes of inputs that may wait.
        timeout_ms: deadline of a request that names none, in milliseconds after its arrival.
        level_weights: share of each priority level under contention, level 1 first.
        default_priority: level of a request that names none.
        ageing_ms: wait after which a level's share counts twice, after twice that three times, and
            so on.
        smaller_first_ms: by so much later counts a request for each doubling of its rows; 0 keeps
            the order of arrival.
        bulk_after_ms: time without any other request after which bulk requests get batches of their
            own.
        compile: `none` runs the model as it is, `aoti` compiles it ahead of time to one native
            call, or falls back to that.
        isolate: whether a batch that raised is run again in halves, until the requests at fault
            stand alone.
        finite_outputs: whether rows with NaN or infinity in their outputs fail.
        remember_failed_s: seconds for which a request that raised alone, twice, is refused when it
            comes again; 0 forgets it.
        warmup: whether the model runs once for each warm-up size before it is ready.
        trusted: whether files that can run code when they are read (pickles) may be loaded.
    """

    device: Devices = "auto"
    worker: Literal["thread", "process"] = "thread"
    instances: Annotated[Integer, Field(ge=1, le=256)] = 1
    load_timeout_s: SecondsOrNone = 600.0
    watchdog_s: Seconds = 60.0
    retry_on_crash: bool = False
    torch_threads: Count | None = None
    max_batch_size: Count = 64
    policy: Literal["eager", "delay", "slo"] = "eager"
    slo_ms: Milliseconds = 100.0
    max_delay_ms: Milliseconds = 5.0
    preferred_batch_sizes: tuple[Count, ...] = ()
    pipeline_depth: Annotated[Integer, Field(ge=1, le=2)] = 2
    max_queue_rows: Count = 4096
    max_queue_bytes: Bytes = ByteSize(256 * MIB)
    timeout_ms: Milliseconds = 30_000.0
    level_weights: Annotated[
        tuple[Annotated[Number, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)
    ] = (
        4.0,
        2.0,
        1.0,
    )
    default_priority: Count = 2
    ageing_ms: Milliseconds = 1000.0
    smaller_first_ms: MillisecondsOrNone = 0.0
    bulk_after_ms: Milliseconds = 1000.0
    compile: Literal["none", "aoti"] = "none"
    isolate: bool = True
    finite_outputs: bool = False
    remember_failed_s: SecondsOrNone = 0.0
    warmup: bool = True
    trusted: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that instances take in turn."""
        return tuple(self.device.split(","))

    def for_instance(self, index: int) -> ModelSettings:
        """Return the settings of one instance, on the device whose turn it is."""
        return self.model_copy(update={"device": self.devices[index % len(self.devices)]})

    @property
    def bulk_level(self) -> int:
        """The priority of bulk requests, which stand below all levels."""
        return len(self.level_weights) + 1

    @property
    def timeout(self) -> float:
        """Seconds after its arrival at which a request is worthless that names no time of its own."""
        return (self.slo_ms if self.policy == "slo" else self.timeout_ms) / 1e3


class ModelOverrides(ModelSettings):
    """The settings of one model that differ from `defaults`.

    Attributes:
        path: the model's folder, if it does not stand in the repository; relative to the
            configuration file.
    """

    path: str | None = None
