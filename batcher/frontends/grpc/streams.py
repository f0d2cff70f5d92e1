"""`ModelStreamInfer`: one stream carries many requests and, in the same order, their answers.

The requests of a stream run side by side, so that a single client fills batches. Two loops share a
queue of answers:

| loop | per request |
|---|---|
| reading | waits for room, takes a request, begins to answer it, queues the answer |
| writing | takes the oldest answer, waits until it is complete, writes it, makes room |

A request that fails gets an answer with its error, and the stream goes on. A stream holds a bounded
number of requests. Beyond that number nothing more is read, and the client has to wait. A client
that does not read its answers loses its stream after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import Calls, Context
from batcher.frontends.grpc.inference import Inference
from batcher.frontends.grpc.large import read_infer_message
from batcher.frontends.grpc.responses import FINAL_RESPONSE, WrittenAnswer, in_stream

StreamAnswer = pb.ModelStreamInferResponse | WrittenAnswer
Answer = asyncio.Task[StreamAnswer]

FIRST_REQUESTS = 4
"""Requests that a stream begins with, before the size of an answer is known; each answer allows one
more.
"""

ANSWERS_BYTES = 128 << 20
"""Bytes that the answers of one stream may take while they are not written: two of the largest."""
Messages = AsyncIterator[bytes]


class Streams:
    """Answers streams. Reactor thread.

    Attributes:
        max_requests: requests of one stream that are read and whose answers are not yet written.
        write_timeout_s: seconds that a client may take to read one answer.
        stopping: set when streams are to end with the answers of the requests that they have read.
    """

    def __init__(
        self,
        inference: Inference,
        calls: Calls,
        max_requests: int,
        write_timeout_s: float,
        stopping: asyncio.Event,
    ) -> None:
        """Answer requests by `inference`, and count each in `calls`; the rest are attributes."""
        self._inference = inference
        self._calls = calls
        self.max_requests = max_requests
        self.write_timeout_s = write_timeout_s
        self.stopping = stopping

    async def answer(self, messages: Messages, context: Context) -> None:
        """Answer the requests of one stream, in their order. Reactor thread."""
        self._calls.running += 1
        try:
            await _Stream(self, messages, context).answer()
        finally:
            self._calls.running -= 1

    async def answer_one(self, data: bytes, context: Context) -> StreamAnswer:
        """Answer one request of a stream; an error goes into the answer. Reactor thread."""
        began = self._calls.seconds()
        message = pb.ModelInferRequest()
        try:
            message, tensors = read_infer_message(data)
            response = await self._inference.infer(message, context, tensors, in_stream)
        except Exception as err:  # every error is an answer: the stream goes on
            self._calls.failed("ModelStreamInfer", err, began, message, context)
            _, text = self._calls.status_of(err, context)
            # The client matches an error with its request by these fields.
            response = pb.ModelInferResponse(
                model_name=message.model_name, model_version=message.model_version, id=message.id
            )
            return pb.ModelStreamInferResponse(error_message=text, infer_response=response)
        self._calls.answered("ModelStreamInfer", began, response, context)
        if isinstance(response, WrittenAnswer):
            return response
        # Clients wait for this flag: it marks the last answer to a request, here the only one.
        response.parameters[FINAL_RESPONSE].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)


class _Stream:
    """One stream under way. Reactor thread."""

    def __init__(self, streams: Streams, messages: Messages, context: Context) -> None:
        self._streams = streams
        self._messages = messages
        self._context = context
        self._written = asyncio.Event()
        self._largest = 1  # bytes of the largest answer so far
        self._most_begun = FIRST_REQUESTS
        self._answers: asyncio.Queue[Answer | None] = asyncio.Queue()  # None behind the last
        self._unwritten: set[Answer] = set()

    async def answer(self) -> None:
        """Read requests and write answers until either side ends the stream."""
        streams, context = self._streams, self._context
        reading = asyncio.ensure_future(self._read())
        try:
            while (answer := await self._answers.get()) is not None:
                message = await answer
                self._learn(message)
                async with asyncio.timeout(streams.write_timeout_s):
                    await context.write(message)
                self._unwritten.discard(answer)
                self._written.set()
            complete = await reading
        except TimeoutError:
            text = f"no answer was read for {streams.write_timeout_s:g} s"
            await context.abort(grpc.StatusCode.ABORTED, text)
        finally:
            # A client that left takes its requests with it.
            for task in (reading, *self._unwritten):
                task.cancel()
        if not complete:
            text = "the server is being stopped and takes no more requests"
            await context.abort(grpc.StatusCode.UNAVAILABLE, text)

    def _learn(self, message: StreamAnswer) -> None:
        """Note how large answers are: the more are known, the more may be on their way."""
        self._largest = max(message.ByteSize(), self._largest)
        self._most_begun += 1

    async def _room(self) -> None:
        """Wait until one more answer may be on its way."""
        while len(self._unwritten) >= self._most():
            self._written.clear()
            await self._written.wait()

    def _most(self) -> int:
        fitting = max(ANSWERS_BYTES // self._largest, 1)
        return min(self._streams.max_requests, self._most_begun, fitting)

    async def _read(self) -> bool:
        """Begin each request as it comes; return whether the client ended the stream.

        Returns false if the server ended the stream, since it stops.
        """
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._streams.stopping.wait())
        coming = stopping
        try:
            while True:
                await self._room()
                coming = asyncio.ensure_future(anext(self._messages, None))
                await asyncio.wait((coming, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    return False
                data = coming.result()
                if data is None:
                    return True
                answer = asyncio.ensure_future(self._streams.answer_one(data, self._context))
                self._unwritten.add(answer)
                self._answers.put_nowait(answer)
        finally:
            stopping.cancel()
            coming.cancel()
            self._answers.put_nowait(None)
