"""Health, metadata and model configuration of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher import __version__
from batcher.codecs.formats.json_lists import to_json
from batcher.core.spec import TensorSpec
from batcher.errors import Draining, ModelNotReady
from batcher.frontends.endpoints.call import Call, Reply
from batcher.serving.server import ModelServer

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
"""What is served besides the core of the protocol, by the names of its extensions."""

_DATA_TYPES = {"BYTES": "TYPE_STRING"}
"""Datatypes whose name in a model configuration is not `TYPE_` and their own."""


class Metadata:
    """Everything that clients ask for before they infer.

    The documents are the same over HTTP and gRPC. Reactor thread.
    """

    def __init__(self, server: ModelServer) -> None:
        """Tell of `server`."""
        self._server = server

    def live(self, call: Call) -> Deferred[Reply]:
        """Answer 200 as long as the loop turns. Reactor thread."""
        return _json({"live": True})

    def ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 once every model is ready; else fail with what is not. Reactor thread."""
        self.check_ready()
        return _json({"ready": True})

    def server(self, call: Call) -> Deferred[Reply]:
        """Answer name, version and extensions of the server. Reactor thread."""
        return _json(self.server_document())

    def model_ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 if the model is ready; else fail as `ready_model` does. Reactor thread."""
        served = self._server.ready_model(*_model_of(call))
        return _json({"name": served.spec.name, "ready": True})

    def model(self, call: Call) -> Deferred[Reply]:
        """Answer versions and tensors of a model. Reactor thread."""
        return _json(self.model_document(*_model_of(call)))

    def config(self, call: Call) -> Deferred[Reply]:
        """Answer the configuration of a model, in the names of the model configuration extension. Reactor thread."""
        return _json(self.config_document(*_model_of(call)))

    def check_ready(self) -> None:
        """Raise Draining or ModelNotReady, with what is not ready, unless every model is."""
        waiting = self._server.unready()
        if self._server.draining:
            raise Draining("not ready: the server is being stopped", retry_after=5)
        if waiting:
            raise ModelNotReady(
                "not ready: "
                f"{'; '.join(f'{title} is {reason}' for title, reason in waiting.items())}"
            )

    def server_document(self) -> dict[str, Any]:
        """Return name, version and extensions of the server."""
        return {"name": "batcher", "version": __version__, "extensions": EXTENSIONS}

    def model_document(self, name: str, version: str) -> dict[str, Any]:
        """Return versions and tensors of a model; raise as `ready_model` does."""
        spec = self._server.ready_model(name, version).spec
        return {
            "name": spec.name,
            "versions": self._server.versions(spec.name),
            "platform": spec.platform,
            "inputs": list(map(_input, spec.inputs)),
            "outputs": list(map(_output, spec.outputs)),
        }

    def config_document(self, name: str, version: str) -> dict[str, Any]:
        """Return the configuration of a model; raise as `ready_model` does."""
        served = self._server.ready_model(name, version)
        spec, settings = served.spec, served.settings
        batching: dict[str, Any] = {"max_queue_delay_microseconds": 0}
        if settings.policy == "delay":
            batching["max_queue_delay_microseconds"] = round(settings.max_delay_ms * 1000)
            batching["preferred_batch_size"] = settings.preferred_batch_sizes
        batching["priority_levels"] = served.max_level
        batching["default_priority_level"] = settings.default_priority
        return {
            "name": spec.name,
            "platform": spec.platform,
            "backend": spec.platform,
            "max_batch_size": settings.max_batch_size,
            "input": [_configured(_input(tensor)) for tensor in spec.inputs],
            "output": [_configured(_output(tensor)) for tensor in spec.outputs],
            "dynamic_batching": batching,
            "model_transaction_policy": {"decoupled": False},
        }


def _model_of(call: Call) -> tuple[str, str]:
    return call.head.arguments["name"], call.head.arguments.get("version", "")


def _tensor(tensor: TensorSpec, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype.name, "shape": shape}


def _input(tensor: TensorSpec) -> dict[str, Any]:
    """Return an input; a row without axes is said to have one, since clients of C++ cannot send it else. Both are taken."""
    return _tensor(tensor, tensor.batch_shape if tensor.shape else (-1, 1))


def _output(tensor: TensorSpec) -> dict[str, Any]:
    return _tensor(tensor, tensor.batch_shape)


def _configured(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of `tensor`, as the metadata have it, in the configuration, which has no batch axis."""
    name, kind = tensor["name"], tensor["datatype"]
    return {
        "name": name,
        "data_type": _DATA_TYPES.get(kind, f"TYPE_{kind}"),
        "dims": tensor["shape"][1:],
    }


def _json(document: dict[str, Any]) -> Deferred[Reply]:
    return succeed(Reply(200, b"application/json", to_json(document)))
