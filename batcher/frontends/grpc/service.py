"""Every call of the Open Inference Protocol's service but inference.

The documents are those of its REST form.
"""

from __future__ import annotations

from typing import Any

from batcher.errors import BatcherError, NotServed
from batcher.frontends.endpoints.oip.metadata import Metadata
from batcher.frontends.endpoints.oip.repository import Repository, load_as_asked
from batcher.frontends.endpoints.oip.statistics import Statistics
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import Calls, Context, outcome
from batcher.frontends.grpc.requests import parameters_document
from batcher.frontends.grpc.responses import filled
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer

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


class Service:
    """The calls. Each raises any ClientError or Unavailable that it deserves. Reactor thread."""

    def __init__(self, server: ModelServer, repository: ModelRepository) -> None:
        """Tell of `server`, and of the `repository` that its models come from."""
        self._server = server
        self._repository = repository
        self._metadata = Metadata(server)
        self._statistics = Statistics(server)
        self._index = Repository(repository)

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """Return the handler of each call, made by `calls`."""
        served = [
            calls.unary(name, getattr(self, function), _request(name))
            for name, function in _FUNCTIONS.items()
        ]
        return dict(served) | dict(
            calls.unary(name, self.not_served, _request(name)) for name in NOT_SERVED
        )

    async def live(self, message: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Answer as long as the loop turns."""
        return pb.ServerLiveResponse(live=True)

    async def ready(
        self, message: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Answer whether every model is ready."""
        return pb.ServerReadyResponse(ready=is_ready(self._metadata.check_ready))

    async def model_ready(
        self, message: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Answer whether a model is ready; one that is unknown is not."""
        return pb.ModelReadyResponse(
            ready=is_ready(self._server.ready_model, message.name, message.version)
        )

    async def server(
        self, message: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Answer name, version and extensions."""
        return filled(pb.ServerMetadataResponse(), self._metadata.server_document())

    async def model(
        self, message: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Answer versions and tensors of a model."""
        return filled(
            pb.ModelMetadataResponse(), self._metadata.model_document(message.name, message.version)
        )

    async def config(
        self, message: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Answer the configuration of a model."""
        document = {"config": self._metadata.config_document(message.name, message.version)}
        return filled(pb.ModelConfigResponse(), document)

    async def statistics(
        self, message: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Answer the statistics of a version, of a model or of all."""
        return filled(
            pb.ModelStatisticsResponse(), self._statistics.document(message.name, message.version)
        )

    async def index(
        self, message: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """Answer every version of every model with its state."""
        return filled(pb.RepositoryIndexResponse(), {"models": self._index.entries(message.ready)})

    async def load(
        self, message: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model, where clients may."""
        await outcome(
            load_as_asked(
                self._repository, message.model_name, parameters_document(message.parameters)
            )
        )
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, message: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model, where clients may."""
        await outcome(self._repository.unload(message.model_name))
        return pb.RepositoryModelUnloadResponse()

    async def not_served(self, message: Any, context: Context) -> Any:
        """Refuse a part of the protocol that is not here."""
        raise NotServed(
            "expected a part of the protocol that is served; got "
            f"{type(message).__name__.removesuffix('Request')}"
        )


_FUNCTIONS = {
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


def is_ready(check: Any, *arguments: str) -> bool:
    """Whether `check` raises no error of ours."""
    try:
        check(*arguments)
    except BatcherError:
        return False
    return True


def _request(name: str) -> Any:
    return getattr(pb, f"{name}Request")
