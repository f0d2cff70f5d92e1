"""Every call of the Open Inference Protocol's service except inference.

The answers carry the same documents as the protocol's HTTP routes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from batcher.errors import BatcherError, NotServed
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine, ModelControl
from batcher.frontends.endpoints.oip.documents import Documents, index_entries
from batcher.frontends.endpoints.oip.load_parameters import load_for_client
from batcher.frontends.endpoints.readiness import unready_error
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import Calls, Context, outcome, request_id_of, small_message
from batcher.frontends.grpc.requests import parameters_document
from batcher.frontends.grpc.responses import fill_message

NOT_SERVED = (
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)
"""Calls of the protocol that the server lacks; their clients get UNIMPLEMENTED with a reason."""


class Service:
    """The calls. Each may raise any ClientError or Unavailable. Reactor thread."""

    def __init__(self, engine: Engine, control: ModelControl, disclosure: Disclosure) -> None:
        """Describe `engine`; list, load and unload models by `control`.

        `disclosure` says how much clients read of why a version is not ready.
        """
        self._engine = engine
        self._control = control
        self._disclosure = disclosure
        self._documents = Documents(engine)

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """Return name and handler of each call; `calls` makes the handlers."""
        methods = {name: getattr(self, method) for name, method in _METHODS.items()}
        methods |= dict.fromkeys(NOT_SERVED, self.refuse)
        return dict(
            calls.unary(name, method, partial(small_message, getattr(pb, f"{name}Request")))
            for name, method in methods.items()
        )

    async def live(self, message: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Answer true as long as the loop turns. Reactor thread."""
        return pb.ServerLiveResponse(live=True)

    async def ready(
        self, message: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Answer whether every model is ready. Reactor thread."""
        return pb.ServerReadyResponse(ready=unready_error(self._engine) is None)

    async def model_ready(
        self, message: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Answer whether a model is ready; an unknown model is not. Reactor thread."""
        try:
            self._engine.ready_model(message.name, message.version)
        except BatcherError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def server(
        self, message: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Answer name, version and extensions of the server. Reactor thread."""
        return fill_message(pb.ServerMetadataResponse(), self._documents.server())

    async def model(
        self, message: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Answer versions and tensors of a model. Reactor thread."""
        document = self._documents.model(message.name, message.version)
        return fill_message(pb.ModelMetadataResponse(), document)

    async def config(
        self, message: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Answer the configuration of a model. Reactor thread."""
        document = {"config": self._documents.config(message.name, message.version)}
        return fill_message(pb.ModelConfigResponse(), document)

    async def statistics(
        self, message: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Answer the statistics of a version, of a model or of all models. Reactor thread."""
        document = self._documents.statistics(message.name, message.version)
        return fill_message(pb.ModelStatisticsResponse(), document)

    async def index(
        self, message: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """Answer every version of every model with its state. Reactor thread."""
        request_id = request_id_of(context)
        entries = index_entries(self._control, message.ready, self._disclosure, request_id)
        document = {"models": await outcome(entries)}
        return fill_message(pb.RepositoryIndexResponse(), document)

    async def load(
        self, message: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model, where clients may. Reactor thread."""
        parameters = parameters_document(message.parameters)
        await outcome(load_for_client(self._control, message.model_name, parameters))
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, message: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model, where clients may. Reactor thread."""
        await outcome(self._control.unload(message.model_name))
        return pb.RepositoryModelUnloadResponse()

    async def refuse(self, message: Any, context: Context) -> Any:
        """Refuse a call that the server lacks, with NotServed. Reactor thread."""
        raise NotServed(
            "expected a part of the protocol that is served; got "
            f"{type(message).__name__.removesuffix('Request')}"
        )


_METHODS = {
    "ServerLive": "live",
    "ServerReady": "ready",
    "ModelReady": "model_ready",
    "ServerMetadata": "server",
    "ModelMetadata": "model",
    "ModelConfig": "config",
    "ModelStatistics": "statistics",
    "RepositoryIndex": "index",
    "RepositoryModelLoad": "load",
    "RepositoryModelUnload": "unload",
}
"""Calls of the protocol, and the method of `Service` that answers each."""
