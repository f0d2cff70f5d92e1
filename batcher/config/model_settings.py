"""How one model is run and batched: `defaults` and each entry of `models` in `config.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field

from batcher.config.autoscale import AutoscaleSettings, InstanceCount
from batcher.config.cache import Cache
from batcher.config.ray_settings import RaySettings
from batcher.config.reading import Integer, Number
from batcher.config.traffic import TrafficSettings
from batcher.config.values import (
    MIB,
    Bytes,
    Count,
    Milliseconds,
    MillisecondsOrNone,
    Seconds,
    SecondsOrNone,
)


def _joined(value: object) -> object:
    """Return a list of devices as the text that names them all."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


Devices = Annotated[
    str, BeforeValidator(_joined), Field(pattern=r"^(auto|cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*$")
]


def _graphs(value: object) -> object:
    """Return a value of `cuda_graphs`. Of its two kinds each would say what the other lacks."""
    if str(value).lower() not in ("true", "false", "auto"):
        raise ValueError("true, false or auto")
    return value


Graphs = Annotated[bool | Literal["auto"], BeforeValidator(_graphs)]

_WITH_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that make CUDA graphs of their own, which cannot be captured again."""


EAGER_POLICIES = ("eager", "slo")
"""Policies under which a free model takes what waits, but for clients that return."""


class ModelSettings(TrafficSettings):
    """How one model is run and batched.

    Attributes:
        device: `auto` (CUDA if the machine has it), `cpu`, `cuda` or `cuda:n`, or several of these:
            instance 0 takes the first device, instance 1 the second, and so on in turn.
        worker: `thread` runs the model in this process; `process` runs the model in a process of
            its own, which is started again when it ends; `ray` does so on the nodes of a cluster of
            Ray.
        ray: of `worker: ray`: where the cluster is, and what each instance takes of its node; None
            is a core in the cluster that this machine is a node of.
        instances: number of copies of the model; all copies take their batches from one queue.
        autoscale: of `worker: ray`: between which numbers `instances` follow the load; None for
            always so many.
        load_timeout_s: seconds after which a load (construction, `load`, compilation, warm-up)
            fails; 0 waits for ever.
        watchdog_s: seconds after which a running batch counts as hung.
        retry_on_crash: whether a batch is run once more when its worker has ended; its requests may
            then run twice.
        torch_threads: threads inside one operator, for each instance; None shares the cores among
            all instances of all models.
        max_batch_size: most rows of a batch.
        max_batch_elements: most elements of a batch whose rows are padded, padding included: rows
            times their length; None for any number.
        max_client_batch_size: largest `max_batch_size` that a client's load may name, where the
            buffers of one batch also fit into `max_queue_bytes`.
        policy: `eager` sends what is there as soon as the model is free, but for a short wait where
            clients are found to return; `delay` waits for a full batch up to `max_delay_ms`; `slo`
            is `eager` with `slo_ms`; `deferred` sends as late as deadlines and `slo_ms` allow.
        slo_ms: policies `slo` and `deferred`: deadline of a request without one, in milliseconds
            after its arrival; under `deferred` no request waits longer.
        max_delay_ms: longest wait in milliseconds: under policy `delay` of the oldest request;
            under `eager` and `slo` of a free model for clients that return, and of the last free
            one of several instances for its turn; 0 for none.
        preferred_batch_sizes: policy `delay`: numbers of rows that are sent without a longer wait.
        pipeline_depth: batches that a worker may hold; with 2, the next full batch is ready when
            one ends.
        max_queue_rows: most rows that may wait.
        max_queue_bytes: most bytes of inputs that may wait.
        timeout_ms: policies `eager` and `delay`: deadline of a request without one, in milliseconds
            after its arrival.
        level_weights: share of each priority level under contention, level 1 first.
        default_priority: level of a request without one.
        ageing_ms: milliseconds of waiting after which a level's share counts twice. The share is
            weight * (1 + waited / ageing_ms): after 2 * ageing_ms it counts three times.
        smaller_first_ms: milliseconds by which a request counts as arrived later, for each doubling
            of its rows; 0 keeps the order of arrival.
        bulk_after_ms: milliseconds without any other request after which bulk requests get batches
            of their own.
        compile: `none` runs the model as it is; `aoti` compiles the model ahead of time to one
            native call; `inductor` compiles the model as it runs (`torch.compile`), at warm-up. A
            model that cannot be compiled runs as it is.
        compile_mode: of `compile: inductor`: the `mode` of `torch.compile`.
        dtype: numbers that a model of PyTorch computes in: `bf16`, `fp16` or `fp32`; null leaves
            them as the model has them. Inputs and outputs keep their declared types.
        autocast: whether weights stay as they are, and each operator chooses between `dtype` and
            FP32.
        channels_last: whether pictures, and weights of convolutions, have channels as last axis
            while a model of PyTorch computes.
        cuda_graphs: whether batches of a model of PyTorch run as CUDA graphs, each of one size out
            of a few, and filled up to it; `auto` where that is faster. A model that cannot be
            captured runs as it is, and the log says why.
        preprocess_on: where `preprocess` of a `torch.nn.Module` runs: `cpu`, for each request in
            the pool; `device`, for a whole batch, on tensors there.
        overlap_copies: whether a GPU copies the inputs of the next batch, and the outputs of the
            last one, while a batch computes; for models of PyTorch with `worker: thread`.
        memory_limit: most bytes of a GPU's memory that each instance of a model may take. A load
            that takes more fails; a model in a process of its own is held to it while it serves
            as well. None for no limit.
        isolate: whether a batch that raised is run again in halves, until each failing request is
            alone.
        finite_outputs: whether a row with NaN or infinity in its outputs fails.
        remember_failed_s: seconds for which a request that has raised alone, twice, is refused when
            the same inputs come again; 0 remembers nothing.
        cache: answers that are kept, so that equal requests are answered without the model; None
            keeps none.
        warmup: whether the model runs once for each warm-up size before it is ready.
        trusted: whether files that can run code when they are read (pickles) may be loaded.
    """

    device: Devices = "auto"
    worker: Literal["thread", "process", "ray"] = "thread"
    ray: RaySettings | None = None
    instances: InstanceCount = 1
    autoscale: AutoscaleSettings | None = None
    load_timeout_s: SecondsOrNone = 600.0
    watchdog_s: Seconds = 60.0
    retry_on_crash: bool = False
    torch_threads: Count | None = None
    max_batch_size: Count = 64
    max_batch_elements: Count | None = None
    max_client_batch_size: Count = 1024
    policy: Literal["eager", "delay", "slo", "deferred"] = "eager"
    slo_ms: Milliseconds = 100.0
    max_delay_ms: MillisecondsOrNone = 5.0
    preferred_batch_sizes: tuple[Count, ...] = ()
    pipeline_depth: Annotated[Integer, Field(ge=1, le=2)] = 2
    max_queue_rows: Count = 4096
    max_queue_bytes: Bytes = ByteSize(256 * MIB)
    timeout_ms: Milliseconds = 30_000.0
    level_weights: Annotated[
        tuple[Annotated[Number, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)
    ] = (4.0, 2.0, 1.0)
    default_priority: Count = 2
    ageing_ms: Milliseconds = 1000.0
    smaller_first_ms: MillisecondsOrNone = 0.0
    bulk_after_ms: Milliseconds = 1000.0
    compile: Literal["none", "aoti", "inductor"] = "none"
    compile_mode: Literal[
        "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"
    ] = "default"
    dtype: Literal["bf16", "fp16", "fp32"] | None = None
    autocast: bool = False
    channels_last: bool = False
    cuda_graphs: Graphs = False
    overlap_copies: bool = False
    preprocess_on: Literal["cpu", "device"] = "cpu"
    memory_limit: Bytes | None = None
    isolate: bool = True
    finite_outputs: bool = False
    remember_failed_s: SecondsOrNone = 0.0
    cache: Cache | None = None
    warmup: bool = True
    trusted: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that instances take in turn."""
        return tuple(self.device.split(","))

    def for_instance(self, index: int) -> ModelSettings:
        """Return the settings of instance number `index`, with the one device it runs on."""
        return self.model_copy(update={"device": self.devices[index % len(self.devices)]})

    @property
    def on_ray(self) -> RaySettings:
        """Where the cluster of Ray is, and what each instance takes of its node."""
        return self.ray or RaySettings()

    @property
    def most_instances(self) -> int:
        """The instances that there are at most."""
        return self.instances if self.autoscale is None else self.autoscale.max

    @property
    def local_instances(self) -> int:
        """The instances that run on this machine."""
        return 0 if self.worker == "ray" else self.instances

    @property
    def bulk_level(self) -> int:
        """The priority of bulk requests, one below the lowest level."""
        return len(self.level_weights) + 1

    @property
    def is_eager(self) -> bool:
        """Whether a free model takes what waits, but for clients that return."""
        return self.policy in EAGER_POLICIES

    def contradiction(self) -> tuple[str, str, object] | None:
        """Return the setting that contradicts another, what was expected of it, and what came."""
        levels, most = len(self.level_weights), self.max_batch_size
        if self.default_priority > levels:
            return "default_priority", f"1 to {levels}, a level", self.default_priority
        if too_big := [size for size in self.preferred_batch_sizes if size > most]:
            return "preferred_batch_sizes", f"at most max_batch_size ({most})", too_big
        own = self._scaling_contradiction() or self._device_contradiction()
        return own or super().contradiction()

    def _scaling_contradiction(self) -> tuple[str, str, object] | None:
        """Return what contradicts `autoscale`, as `contradiction` does."""
        scale = self.autoscale
        if scale is None:
            return None
        if self.worker != "ray":
            return "autoscale", "none without `worker: ray`", f"it with `worker: {self.worker}`"
        if scale.min > scale.max:
            return "autoscale", f"a min of at most its max ({scale.max})", scale.min
        if self.instances != 1:
            return "instances", "none beside `autoscale`, whose min and max say it", self.instances
        return None

    def _device_contradiction(self) -> tuple[str, str, object] | None:
        """Return what contradicts how a module of PyTorch runs, as `contradiction` does."""
        if self.autocast and self.dtype not in ("bf16", "fp16"):
            return "autocast", "`dtype: bf16` or `dtype: fp16` beside it", f"dtype {self.dtype}"
        if self.compile != "inductor" and self.compile_mode != "default":
            return "compile_mode", "`compile: inductor` beside it", f"compile {self.compile}"
        if self.cuda_graphs and self.compile_mode in _WITH_GRAPHS:
            expected = "default or max-autotune-no-cudagraphs beside cuda_graphs"
            return "compile_mode", expected, self.compile_mode
        if self.overlap_copies and self.pipeline_depth == 1:
            return "overlap_copies", "`pipeline_depth: 2` beside it", "pipeline_depth 1"
        return None

    @property
    def timeout(self) -> float:
        """Seconds from arrival to the deadline of a request without a deadline of its own."""
        has_slo = self.policy in ("slo", "deferred")
        return (self.slo_ms if has_slo else self.timeout_ms) / 1e3


class ModelOverrides(ModelSettings):
    """The settings of one model that differ from `defaults`.

    Attributes:
        path: a model outside the repository, relative to the configuration file: its folder, or
            one file, such as `net.onnx` or `model.py:Net`.
        inputs: of a path to one file: from the name of an input to its datatype and the shape of
            one row, as `FP32[3,224,224]`; None where the file says them.
        outputs: the same of the outputs.
        sample: of a path to one file: a file with a first example; relative to the configuration
            file.
    """

    path: str | None = None
    inputs: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None
    sample: str | None = None
