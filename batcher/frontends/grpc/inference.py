"""A request from its message to `ModelServer.infer_on`, and its answer back.

The call's deadline is the request's: what nobody waits for is dropped, as is what was cancelled.
"""

from __future__ import annotations

from functools import partial

from batcher.core.request import Parameters
from batcher.frontends.endpoints.oip.infer import SLOW_BYTES, infer_slow, parameters_of, write_slow
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import Context, key_of, outcome
from batcher.frontends.grpc.requests import Asked, Requests
from batcher.frontends.grpc.responses import message_of
from batcher.serving.model_version import ModelVersion
from batcher.serving.server import ModelServer


class Inference:
    """`ModelInfer`, and each request of `ModelStreamInfer`. Reactor thread."""

    def __init__(self, server: ModelServer) -> None:
        """Answer from `server`."""
        self._server = server
        self._generation = -1  # of the server, when the models below were found
        self._found: dict[tuple[str, str], tuple[ModelVersion, Requests]] = {}

    async def infer(self, message: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Answer one request. Raises any ClientError or ServerError."""
        server = self._server
        served, requests = self._model(message.model_name, message.model_version)
        asked = requests.read(message)
        head = asked.head
        key = key_of(context) if server.quotas is not None else ""
        parameters = self._parameters(served, asked, key, context.time_remaining())
        if asked.raw and asked.size >= SLOW_BYTES and requests.slow:
            deferred = infer_slow(server, served, asked.size, asked.inputs, parameters)
        else:
            deferred = server.infer_on(served, asked.inputs(), parameters)
        if not head.slow:
            return message_of(await outcome(deferred), head)
        write = partial(message_of, head=head)
        return await outcome(deferred.addCallback(write_slow, server, served, write, parameters))

    def _model(self, name: str, version: str) -> tuple[ModelVersion, Requests]:
        """Return the version of a model that answers, looked up anew when a model has changed.

        Raises as `ready_model`.
        """
        if self._generation != self._server.generation:
            self._generation = self._server.generation
            self._found.clear()
        found = self._found.get((name, version))
        if found is None:
            served = self._server.ready_model(name, version)
            found = self._found[name, version] = served, Requests(served.spec)
        return found

    def _parameters(
        self, served: ModelVersion, asked: Asked, key: str, left: float | None
    ) -> Parameters:
        parameters = parameters_of(self._server, served, asked.head, key)
        if left is None:
            return parameters
        deadline = self._server.deadline(served, max(left, 0.0))
        own = (
            parameters.deadline
            if parameters.deadline is not None
            else self._server.deadline(served)
        )
        return parameters._replace(deadline=min(deadline, own))
