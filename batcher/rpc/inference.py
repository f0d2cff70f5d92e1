"""`ModelInfer` and `ModelStreamInfer`: from a message to `ModelServer.infer_on` and back.

The call's deadline is the request's: what nobody waits for is dropped, as is what was cancelled. A stream's requests run side
by side, so that one client fills batches; its answers come in the order of the requests, each with its own error, which does
not end the stream. How many may be under way is bounded, and beyond that nothing is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from batcher.endpoints.oip.infer import SLOW_BYTES, infer_slow, parameters_of, write_slow
from batcher.request import Parameters
from batcher.rpc._generated import grpc_service_pb2 as pb
from batcher.rpc.calls import Calls, Context, is_timed, outcome, parsed, status_of
from batcher.rpc.requests import Asked, Requests
from batcher.rpc.responses import message_of
from batcher.served import ServedModel
from batcher.server import ModelServer

Answer = asyncio.Task[pb.ModelStreamInferResponse]


class Inference:
    """The two calls. Reactor thread."""

    def __init__(self, server: ModelServer, calls: Calls, most_streamed: int, stopping: asyncio.Event) -> None:
        """Answer from `server`.

        Args:
            server: the models.
            calls: told of each request.
            most_streamed: most requests of one stream that are worked on at a time.
            stopping: set when streams are to end with the answers that are due on them.
        """
        self._server = server
        self._calls = calls
        self._most_streamed = most_streamed
        self._stopping = stopping
        self._generation = -1  # of the server, when the models below were found
        self._found: dict[tuple[str, str], tuple[ServedModel, Requests]] = {}

    async def infer(self, message: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Answer one request. Raises any ClientError or ServerError."""
        server = self._server
        served, requests = self._model(message.model_name, message.model_version)
        asked = requests.read(message)
        head = asked.head
        parameters = self._parameters(served, asked, context.time_remaining())
        if asked.raw and asked.size >= SLOW_BYTES and requests.slow:
            deferred = infer_slow(server, served, asked.size, asked.inputs, parameters)
        else:
            deferred = server.infer_on(served, asked.inputs(), parameters)
        if not head.slow:
            return message_of(await outcome(deferred), head)
        write = partial(message_of, head=head)
        return await outcome(deferred.addCallback(write_slow, server, served, write, parameters))

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answer the requests of one stream, in their order."""
        answers: asyncio.Queue[Answer | None] = asyncio.Queue(self._most_streamed)
        reading = asyncio.ensure_future(self._read(messages, context, answers))
        answer: Answer | None = None
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
        finally:
            reading.cancel()
            while answer is not None:
                answer.cancel()
                answer = None if answers.empty() else answers.get_nowait()

    def _model(self, name: str, version: str) -> tuple[ServedModel, Requests]:
        """Return the version of a model that answers, looked up anew when a model has changed. Raises as `ready_model`."""
        if self._generation != self._server.generation:
            self._generation = self._server.generation
            self._found.clear()
        found = self._found.get((name, version))
        if found is None:
            served = self._server.ready_model(name, version)
            found = self._found[name, version] = served, Requests(served.spec)
        return found

    def _parameters(self, served: ServedModel, asked: Asked, left: float | None) -> Parameters:
        parameters = parameters_of(self._server, served, asked.head)
        if left is None:
            return parameters
        deadline = self._server.deadline(served, max(left, 0.0))
        own = parameters.deadline if parameters.deadline is not None else self._server.deadline(served)
        return parameters._replace(deadline=min(deadline, own))

    async def _read(self, messages: AsyncIterator[bytes], context: Context, answers: asyncio.Queue[Answer | None]) -> None:
        """Begin each request as it comes, until the client sends no more or the server is stopped."""
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                coming = asyncio.ensure_future(anext(messages, None))
                await asyncio.wait((coming, stopped), return_when=asyncio.FIRST_COMPLETED)
                message = coming.result() if coming.done() else None
                if message is None:
                    coming.cancel()
                    break
                await answers.put(asyncio.ensure_future(self._streamed(message, context)))
            await answers.put(None)
        finally:
            stopped.cancel()

    async def _streamed(self, data: bytes, context: Context) -> pb.ModelStreamInferResponse:
        """Answer one request of a stream; an error goes into the answer."""
        began = self._server.seconds()
        message = pb.ModelInferRequest()
        try:
            message = parsed(pb.ModelInferRequest, data)
            response = await self.infer(message, context)
        except Exception as err:  # whatever a request raises is told its client
            self._calls.ended("ModelStreamInfer", getattr(err, "http_status", 500), began)
            _, text = status_of(err, self._calls.expose_model_errors, is_timed(context))
            asked = pb.ModelInferResponse(model_name=message.model_name, model_version=message.model_version, id=message.id)
            return pb.ModelStreamInferResponse(error_message=text, infer_response=asked)
        self._calls.ended("ModelStreamInfer", 200, began, response.model_name)
        response.parameters["triton_final_response"].bool_param = True  # the only answer to its request
        return pb.ModelStreamInferResponse(infer_response=response)
