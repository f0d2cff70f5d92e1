"""`ModelStreamInfer`: the requests of one stream run side by side, so that one client fills batches.

Its answers come in the order of the requests, each with its own error, which does not end the
stream. Only so many requests are under way at a time, beyond which nothing is read; a client that
does not read its answers is left after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import Calls, Context, is_timed, parsed, status_of
from batcher.frontends.grpc.inference import Inference

Answer = asyncio.Task[pb.ModelStreamInferResponse]
Messages = AsyncIterator[bytes]


class Streams:
    """The call. Reactor thread.

    Attributes:
        most: most requests of one stream that are worked on, or answered and not sent, at a time.
        patience: seconds that a client may take to read an answer.
    """

    def __init__(
        self,
        inference: Inference,
        calls: Calls,
        most: int,
        patience: float,
        stopping: asyncio.Event,
    ) -> None:
        """Answer by `inference`.

        Args:
            inference: answers a request.
            calls: told of each request.
            most: as the attribute.
            patience: as the attribute.
            stopping: set when streams are to end with the answers that are due on them.
        """
        self._inference = inference
        self._calls = calls
        self.most = most
        self.patience = patience
        self._stopping = stopping

    async def answer(self, messages: Messages, context: Context) -> None:
        """Answer the requests of one stream, in their order."""
        room = asyncio.Semaphore(self.most)
        answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        tasks: set[Answer] = set()
        reading = asyncio.ensure_future(self._read(messages, context, room, answers, tasks))
        try:
            while (answer := await answers.get()) is not None:
                message = await answer
                async with asyncio.timeout(self.patience):
                    await context.write(message)
                tasks.discard(answer)
                room.release()
            whole = await reading
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.ABORTED, f"no answer was read for {self.patience:g} s"
            )
        finally:
            for task in (reading, *tasks):
                task.cancel()
        if not whole:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "the server is being stopped and takes no more requests",
            )

    async def _read(
        self,
        messages: Messages,
        context: Context,
        room: asyncio.Semaphore,
        answers: asyncio.Queue[Answer | None],
        tasks: set[Answer],
    ) -> bool:
        """Begin each request as it comes.

        Return whether the client ended the stream, and not the server.
        """
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        coming = stopped
        try:
            while True:
                await room.acquire()
                coming = asyncio.ensure_future(anext(messages, None))
                await asyncio.wait((coming, stopped), return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    return False
                message = coming.result()
                if message is None:
                    return True
                task = asyncio.ensure_future(self._answer_one(message, context))
                tasks.add(task)
                answers.put_nowait(task)
        finally:
            stopped.cancel()
            coming.cancel()
            answers.put_nowait(None)

    async def _answer_one(self, data: bytes, context: Context) -> pb.ModelStreamInferResponse:
        """Answer one request; an error goes into the answer."""
        began = self._calls.seconds()
        message = pb.ModelInferRequest()
        try:
            message = parsed(pb.ModelInferRequest, data)
            response = await self._inference.infer(message, context)
        except Exception as err:  # whatever a request raises is told its client
            self._calls.ended("ModelStreamInfer", getattr(err, "http_status", 500), began)
            _, text = status_of(err, self._calls.expose_model_errors, is_timed(context))
            asked = pb.ModelInferResponse(
                model_name=message.model_name, model_version=message.model_version, id=message.id
            )
            return pb.ModelStreamInferResponse(error_message=text, infer_response=asked)
        self._calls.ended("ModelStreamInfer", 200, began, response.model_name)
        response.parameters[
            "triton_final_response"
        ].bool_param = True  # the only answer to its request
        return pb.ModelStreamInferResponse(infer_response=response)
