"""What clients may read of the server and its models, as the Open Inference Protocol lays it out.

A document is a dict with the names of the protocol's JSON form. HTTP sends a document as JSON, and
gRPC fills a message with a document, so both say the same. Each document is made when a client asks
for it, from what is true at that moment.
"""

from __future__ import annotations

from time import time
from typing import Any

from twisted.internet.defer import Deferred

from batcher import __version__
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ComputeTimes, Statistics, TimedCount
from batcher.core.spec import TensorSpec
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine, ModelControl, versions_of
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.repository.repository import ListedVersion

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""The extensions of the protocol that the server has, by the protocol's names."""

_INDEX_STATES: dict[ModelState | None, str] = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "READY",
    ModelState.UNLOADING: "UNLOADING",
}
"""States in the index of the repository; every other state, or none, is UNAVAILABLE."""

_DATA_TYPES = {"BYTES": "TYPE_STRING"}
"""Datatypes in a model configuration; every other datatype has `TYPE_` before its own name."""

_NO_DURATION = {"count": 0, "ns": 0}


class Documents:
    """Makes the documents of an engine. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Describe `engine` and its models."""
        self._engine = engine
        # What the clock of the world showed when the engine's clock was 0, in seconds.
        self._clock_zero_s = time() - engine.seconds()

    def server(self) -> dict[str, Any]:
        """Return name, version and extensions of the server."""
        return {"name": "batcher", "version": __version__, "extensions": EXTENSIONS}

    def model(self, name: str, version: str) -> dict[str, Any]:
        """Return versions and tensors of a model; raises as `Engine.ready_model` does."""
        spec = self._engine.ready_model(name, version).spec
        return {
            "name": spec.name,
            "versions": self._engine.versions(spec.name),
            "platform": spec.platform,
            "inputs": list(map(_input, spec.inputs)),
            "outputs": list(map(_output, spec.outputs)),
        }

    def config(self, name: str, version: str) -> dict[str, Any]:
        """Return the configuration of a model; raises as `Engine.ready_model` does."""
        model_version = self._engine.ready_model(name, version)
        spec, settings = model_version.spec, model_version.settings
        return {
            "name": spec.name,
            "platform": spec.platform,
            "backend": spec.platform,
            "max_batch_size": settings.max_batch_size,
            "input": list(map(_config_input, spec.inputs)),
            "output": [_config_tensor(_output(tensor)) for tensor in spec.outputs],
            "dynamic_batching": _dynamic_batching(settings, model_version.max_level),
            "model_transaction_policy": {"decoupled": False},
        }

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        """Return the statistics of one version, or of several.

        Without `version` they are of every version of the model, without `name` of every model.

        Raises:
            UnknownModel: there is no such model or version.
        """
        versions = versions_of(self._engine, name, version) if name else list(self._engine)
        return {"model_stats": list(map(self._version_statistics, versions))}

    def _version_statistics(self, model_version: ModelVersion) -> dict[str, Any]:
        name, version = model_version.key
        statistics = self._engine.metrics.model(name, version).statistics
        last, sizes = statistics.last_inference, sorted(statistics.by_batch_size.items())
        return {
            "name": name,
            "version": version,
            "last_inference": 0 if last is None else round((self._clock_zero_s + last) * 1e3),
            "inference_count": statistics.inference_count,
            "execution_count": sum(times.compute_infer.count for _, times in sizes),
            "inference_stats": _inference_stats(statistics),
            "response_stats": {},
            "batch_stats": [{"batch_size": rows, **_compute(times)} for rows, times in sizes],
            "memory_usage": [],
        }


def index_entries(
    control: ModelControl, ready: bool, disclosure: Disclosure, request_id: bytes | None
) -> Deferred[list[dict[str, Any]]]:
    """Return an entry for each version in the repository, or for each version that is `ready`.

    `disclosure` says how much the client, which sent `request_id`, reads of why a version is not
    ready. Fails with ModelNotReady if the repository cannot be read. Reactor thread.
    """

    def entries(versions: list[ListedVersion]) -> list[dict[str, Any]]:
        return [
            _index_entry(listed, disclosure, request_id)
            for listed in versions
            if not ready or listed.state is ModelState.READY
        ]

    return control.versions().addCallback(entries)


def _index_entry(
    listed: ListedVersion, disclosure: Disclosure, request_id: bytes | None
) -> dict[str, Any]:
    state = _INDEX_STATES.get(listed.state, "UNAVAILABLE")
    entry = {"name": listed.name, "version": listed.version, "state": state}
    if listed.state is ModelState.READY:
        return entry
    reason = disclosure.part(listed.detail, listed.public_detail, request_id).text
    return {**entry, "reason": reason}


def _dynamic_batching(settings: ModelSettings, max_level: int) -> dict[str, Any]:
    batching: dict[str, Any] = {"max_queue_delay_microseconds": 0}
    if settings.policy == "delay":
        batching["max_queue_delay_microseconds"] = round(settings.max_delay_ms * 1000)
        batching["preferred_batch_size"] = settings.preferred_batch_sizes
    elif settings.policy == "deferred":
        batching["max_queue_delay_microseconds"] = round(settings.slo_ms * 1000)
    batching["priority_levels"] = max_level
    batching["default_priority_level"] = settings.default_priority
    return batching


def _tensor(tensor: TensorSpec, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype.name, "shape": shape}


def _input(tensor: TensorSpec) -> dict[str, Any]:
    """Return the metadata of an input.

    A row without axes is shown with one axis of size 1, since C++ clients cannot send a tensor that
    has rows alone. The server takes both shapes.
    """
    return _tensor(tensor, tensor.batch_shape if tensor.shape else (-1, 1))


def _output(tensor: TensorSpec) -> dict[str, Any]:
    return _tensor(tensor, tensor.batch_shape)


def _config_input(tensor: TensorSpec) -> dict[str, Any]:
    """Return the configuration's entry for an input."""
    entry = _config_tensor(_input(tensor))
    return entry | {"optional": True} if tensor.is_optional else entry


def _config_tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration's entry for a tensor of the metadata.

    The configuration leaves out the batch axis.
    """
    name, datatype = tensor["name"], tensor["datatype"]
    data_type = _DATA_TYPES.get(datatype, f"TYPE_{datatype}")
    return {"name": name, "data_type": data_type, "dims": tensor["shape"][1:]}


def _inference_stats(statistics: Statistics) -> dict[str, Any]:
    return {
        "success": _duration(statistics.success),
        "fail": _duration(statistics.fail),
        "queue": _duration(statistics.queue),
        **_compute(statistics.by_part),
        "cache_hit": _NO_DURATION,
        "cache_miss": _NO_DURATION,
    }


def _compute(times: ComputeTimes) -> dict[str, dict[str, int]]:
    return {
        "compute_input": _duration(times.compute_input),
        "compute_infer": _duration(times.compute_infer),
        "compute_output": _duration(times.compute_output),
    }


def _duration(timed: TimedCount) -> dict[str, int]:
    return {"count": timed.count, "ns": max(round(timed.seconds * 1e9), 0)}
