"""How `config.pbtxt` says that a model is run: the settings that stand below `models.NAME` here."""

from __future__ import annotations

from typing import Any

from batcher.config.triton.fields import (
    Handler,
    Reading,
    accepted,
    ignored,
    refused,
    refused_if_true,
    shown,
)
from batcher.config.triton.text_format import Field, Message

MAX_DIGITS = 10
"""Digits from which on a number in a text is none of threads."""

_OWN_ANSWER = "each answer goes to its own request, in whatever order answers come"
_DEADLINE = "a request that is late here fails, and none goes on after its deadline"


def max_batch_size(reading: Reading, field: Field) -> None:
    """Take the most rows of a batch; 0 means that dims have the axis of the rows."""
    if size := reading.number(field):
        reading.set("max_batch_size", size, field.line)


def dynamic_batching(reading: Reading, field: Field) -> None:
    """Take delays, sizes, levels and queues. An empty one is the default here."""
    reading.each(
        field,
        {
            "preferred_batch_size": _preferred,
            "max_queue_delay_microseconds": _delay,
            "preserve_ordering": ignored(_OWN_ANSWER),
            "priority_levels": _levels,
            "default_priority_level": _default_level,
            "default_queue_policy": _queue,
            "priority_queue_policy": refused("one queue holds all levels: see level_weights"),
        },
    )
    settings = reading.settings
    if "max_delay_ms" in settings:
        reading.set("policy", "delay", field.line)
    elif settings.pop("preferred_batch_sizes", None):
        reading.note(
            Field("preferred_batch_size", "", field.line),
            "without max_queue_delay_microseconds a free model takes what waits",
        )


def _preferred(reading: Reading, field: Field) -> None:
    if size := reading.number(field, 1):
        sizes = reading.settings.get("preferred_batch_sizes", [])
        sizes.append(size)
        reading.set("preferred_batch_sizes", sizes, field.line)


def _delay(reading: Reading, field: Field) -> None:
    if delay := reading.number(field):
        reading.set("max_delay_ms", delay / 1e3, field.line)


def _levels(reading: Reading, field: Field) -> None:
    """Take the levels: each has four times the share of the next, as Triton serves in order."""
    levels = reading.number(field)
    if levels is not None and levels > 16:
        reading.refuse(field, f"expected at most 16 levels; got {levels}")
    elif levels:
        reading.set("level_weights", [4.0 ** (levels - 1 - at) for at in range(levels)], field.line)
        if reading.settings.get("default_priority", 2) > levels:
            reading.set("default_priority", levels, field.line)


def _default_level(reading: Reading, field: Field) -> None:
    if level := reading.number(field):
        reading.set("default_priority", level, field.line)


def _queue(reading: Reading, field: Field) -> None:
    reading.each(
        field,
        {
            "timeout_action": _timeout_action,
            "default_timeout_microseconds": _timeout,
            "allow_timeout_override": ignored("a request may always say X-Timeout-Ms"),
            "max_queue_size": _queue_size,
        },
    )


def _timeout_action(reading: Reading, field: Field) -> None:
    if str(field.value) not in ("REJECT", "0"):
        reading.refuse(field, f"expected REJECT; got {shown(field)}: {_DEADLINE}")


def _timeout(reading: Reading, field: Field) -> None:
    if micro := reading.number(field):
        reading.set("timeout_ms", micro / 1e3, field.line)


def _queue_size(reading: Reading, field: Field) -> None:
    if size := reading.number(field):
        reading.set("max_queue_rows", size, field.line)


class _Group:
    """An instance group while it is read."""

    def __init__(self) -> None:
        self.kind = "KIND_AUTO"
        self.count = 1
        self.gpus: list[int] = []

    def take_kind(self, reading: Reading, field: Field) -> None:
        kinds = ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL")
        if str(field.value) not in kinds:
            reading.refuse(field, f"expected one of {', '.join(kinds)}; got {shown(field)}")
        self.kind = str(field.value)

    def take_count(self, reading: Reading, field: Field) -> None:
        self.count = reading.number(field, 1) or 1

    def take_gpu(self, reading: Reading, field: Field) -> None:
        number = reading.number(field)
        if number is not None:
            self.gpus.append(number)

    @property
    def devices(self) -> list[str]:
        """The devices of the group, one for each instance of one round."""
        if self.kind == "KIND_CPU":
            return ["cpu"]
        if self.gpus:
            return [f"cuda:{number}" for number in self.gpus]
        return ["cuda"] if self.kind == "KIND_GPU" else ["auto"]

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each field."""
        return {
            "name": accepted,
            "kind": self.take_kind,
            "count": self.take_count,
            "gpus": self.take_gpu,
            "passive": refused_if_true("every instance takes requests"),
            "rate_limiter": refused("no resources are counted: see load_concurrency and instances"),
            "secondary_devices": refused("an instance runs on one device"),
            "profile": refused("profiles are TensorRT's"),
            "host_policy": ignored("threads are not bound to a part of the machine"),
        }


def instance_group(reading: Reading, field: Field) -> None:
    """Take how many instances there are, and where. Several groups add up."""
    group = _Group()
    reading.each(field, group.handlers())
    known = reading.settings.get("device")
    here = list(dict.fromkeys((known.split(",") if known else []) + group.devices))
    if len(here) > 1 and "auto" in here:
        reading.refuse(field, "expected the kind of every group, or of none; got both")
        return
    if "cuda" in here and any(each.startswith("cuda:") for each in here):
        reading.refuse(field, "expected gpus of every group, or of none; got both")
        return
    count = reading.settings.setdefault("_count", group.count)
    if count != group.count and len(here) > 1:
        reading.refuse(field, f"expected as many instances on each device, {count}; got another")
        return
    reading.set("device", ",".join(here), field.line)
    instances = reading.settings.get("instances", 0) + group.count * len(group.devices)
    reading.set("instances", instances, field.line)


def version_policy(reading: Reading, field: Field) -> None:
    """Take which versions serve."""
    numbers: list[int] = []

    def number(reading: Reading, inner: Field) -> None:
        numbers.append(reading.number(inner) or 0)

    def choose(reading: Reading, inner: Field) -> None:
        chosen: dict[str, Any] = {
            "all": "all",
            "latest": {"latest": numbers[0] if numbers else 1},
            "specific": numbers,
        }
        reading.set("versions", chosen[inner.name], inner.line)

    def take(reading: Reading, inner: Field) -> None:
        names = {"all": "", "latest": "num_versions", "specific": "versions"}
        name = names[inner.name]
        reading.each(inner, {name: number} if name else {})
        choose(reading, inner)

    reading.each(field, {"all": take, "latest": take, "specific": take})


def transaction(reading: Reading, field: Field) -> None:
    """Refuse models that answer a request several times."""
    decoupled = refused_if_true("a request has one answer: models that send several are not served")
    reading.each(field, {"decoupled": decoupled})


def response_cache(reading: Reading, field: Field) -> None:
    """Take whether answers are kept: as many, and as long, as `cache` says by default."""

    def enable(reading: Reading, inner: Field) -> None:
        if reading.boolean(inner):
            reading.set("cache", {}, inner.line)

    reading.each(field, {"enable": enable})


_PARAMETERS = {
    "TF_NUM_INTRA_THREADS": "torch_threads",
    "intra_op_thread_count": "torch_threads",
    "INTRA_OP_THREAD_COUNT": "torch_threads",
}
"""Parameters of backends that are settings here."""

_HINTS = (
    *("inter_op_thread_count", "INTER_OP_THREAD_COUNT", "execution_mode", "level"),
    *("enable_mem_arena", "enable_mem_pattern", "memory.enable_memory_arena_shrinkage"),
    *("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy"),
    *("DISABLE_OPTIMIZED_EXECUTION", "INFERENCE_MODE", "DISABLE_CUDNN", "ENABLE_CACHE_CLEANING"),
    *("ENABLE_WEIGHT_SHARING", "ENABLE_JIT_EXECUTOR", "ENABLE_JIT_PROFILING"),
    *("TF_NUM_INTER_THREADS", "TF_USE_PER_SESSION_THREADS", "MAX_SESSION_SHARE_COUNT"),
    *("ENABLE_NVFUSER", "ENABLE_TENSOR_FUSER", "FORCE_CPU_ONLY_INPUT_TENSORS"),
)
"""Parameters that change how fast a model runs, not what it answers."""


def parameters(reading: Reading, field: Field) -> None:
    """Take a parameter of a backend, a mapping of key to text."""
    found: dict[str, str] = {}

    def key(reading: Reading, inner: Field) -> None:
        found["key"] = reading.text(inner)

    def string(reading: Reading, inner: Field) -> None:
        found["value"] = reading.text(inner)

    def value(reading: Reading, inner: Field) -> None:
        reading.each(inner, {"string_value": string})

    reading.each(field, {"key": key, "value": value})
    _parameter(reading, field, found.get("key", ""), found.get("value", ""))


def _parameter(reading: Reading, field: Field, name: str, text: str) -> None:
    """Take a parameter by its name and its text."""
    setting = _PARAMETERS.get(name)
    if setting is not None and text.isdecimal() and len(text) < MAX_DIGITS:
        if int(text):  # 0 leaves the number to the library
            reading.set(setting, int(text), field.line)
    elif name == "TF_SIGNATURE_DEF" and text:
        reading.values["signature"] = text
        reading.origins[("signature",)] = reading.place(field.line)
    elif name == "TF_GRAPH_TAG" and text == "serve":
        return  # the one that is served
    elif name in _HINTS:
        reading.note(Field(f"parameter {name}", "", field.line), "it tunes another backend")
    else:
        reading.refuse(field, f"expected a parameter that is known here; got {name!r}")


def optimization(reading: Reading, field: Field) -> None:
    """Note each hint about speed: none changes an answer."""
    if not isinstance(field.value, Message):
        reading.refuse(field, f"expected {{ … }}; got {shown(field)}")
        return
    for inner in field.value.fields:
        why = "it tunes another server"
        if inner.name == "execution_accelerators":
            why = "a graph runs by onnxruntime's own providers for the CPU and CUDA"
        reading.note(inner._replace(name=f"optimization.{inner.name}"), why)
