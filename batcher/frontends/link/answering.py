"""The engine's end: answers what fronts ask, each front by a link of its own.

A front that ends takes its requests with it: they are cancelled, as those of clients that left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from batcher.core.frames import clear_all_frames
from batcher.core.request import NO_PARAMETERS, InferenceResponse, OutputRows, Parameters
from batcher.core.spec import Array
from batcher.errors import Unavailable
from batcher.frontends.endpoints.call import Call, CallHead, Reply
from batcher.frontends.link.arrays import read_arrays, write_arrays
from batcher.frontends.link.channel import Channel
from batcher.frontends.link.frames import Message
from batcher.frontends.link.gathering import Answers, is_small
from batcher.frontends.link.messages import (
    ANSWER,
    ASK,
    CALL,
    CANCEL,
    FAILURE,
    REPLY,
    UNSENT,
    read_body,
    write_body,
    write_error,
)
from batcher.frontends.link.models import InferFitting, Key


class Answerer(Protocol):
    """What answers the requests of all fronts. Reactor thread."""

    def infer_for(self, generation: int, key: Key) -> InferFitting:
        """Return what answers requests that were decoded for `key` as `generation` describes it."""

    def reply(
        self, method: str, pattern: str, call: Call, send: Callable[[Reply], None]
    ) -> Deferred[None]:
        """Give the reply to `call` by that route to `send`; raises UnknownRoute."""

    def hear(self, link: FrontLink, message: Message) -> None:
        """Hear a message that is about the front as a whole."""

    def lost(self, link: FrontLink) -> None:
        """Hear that a front has ended."""


class FrontLink:
    """The requests of one front. Reactor thread.

    Attributes:
        channel: the connection with the front.
    """

    def __init__(self, channel: Channel, answerer: Answerer) -> None:
        """Have `answerer` answer what comes through `channel`."""
        self.channel = channel
        self._answerer = answerer
        self._running: dict[int, Deferred[Any]] = {}
        self._answers: Answers | None = None  # the last ones that share a message

    @property
    def running(self) -> int:
        """How many requests are worked on."""
        return len(self._running)

    def take(self, message: Message) -> None:
        """Hear one message of the front."""
        kind = message[0]
        if kind == ASK:
            self._ask(message)
        elif kind == CALL:
            self._call(message)
        elif kind == CANCEL:
            deferred = self._running.pop(message[1], None)
            if deferred is not None:
                deferred.cancel()
        elif kind == UNSENT:
            self._refuse_all(message[2], message[1])
        else:
            self._answerer.hear(self, message)

    def lost(self) -> None:
        """Give up all requests: the front has ended, and its clients with it."""
        running, self._running = self._running, {}
        for deferred in running.values():
            deferred.cancel()
        self._answerer.lost(self)

    def _ask(self, message: Message) -> None:
        """Have the requests that share a message answered."""
        _, numbers, generation, name, version, rows, given, written = message
        try:
            inputs = read_arrays(written, self.channel.reader)
            infer = self._answerer.infer_for(generation, (name, version))
        except Exception:  # the requests are refused at once
            self._refuse_all(Failure(), numbers)
            return
        if len(numbers) == 1:
            self._infer(infer, numbers[0], inputs, rows, given[0])
            return
        cut = {}
        for each, array in inputs.items():
            # All at once: a slice for each request would take twice the time.
            cut[each] = list(array.reshape(len(numbers), rows, *array.shape[1:]))
        for index, number in enumerate(numbers):
            own = {each: arrays[index] for each, arrays in cut.items()}
            self._infer(infer, number, own, rows, given[index])

    def _infer(
        self,
        infer: InferFitting,
        number: int,
        inputs: Mapping[str, Array],
        rows: int,
        given: Any,
    ) -> None:
        try:
            parameters = NO_PARAMETERS if given is None else Parameters(*given)
            deferred = infer(inputs, rows, parameters)
        except Exception:  # as above
            self._refuse(Failure(), number)
            return
        self._running[number] = deferred
        deferred.addCallbacks(self._answered, self._failed, (number,), {}, (number,))

    def _answered(self, response: InferenceResponse, number: int) -> None:
        self._running.pop(number, None)
        try:
            self._answer(response, number)
        except Exception:  # such as outputs that no message can hold
            self._refuse(Failure(), number)

    def _answer(self, response: InferenceResponse, number: int) -> None:
        """Answer together with others of the same batch, or else alone."""
        outputs, origin, steps = response.outputs, response.origin, response.steps
        if isinstance(outputs, OutputRows) and not origin and not steps:
            answers = self._answers
            if answers is not None and answers.add(number, response, outputs):
                return
            batch = outputs.batch
            if is_small(batch.arrays, response.batch_size):
                answers = self._answers = Answers(response, batch)
                self.channel.gather(answers)
                answers.add(number, response, outputs)
                return
        written = write_arrays(outputs, self.channel.lender)
        head = (ANSWER, [number], response.model, response.version, written, None)
        times = [response.queue], response.compute, response.batch_size
        self.channel.send((*head, *times, origin, steps))

    def _failed(self, failure: Failure, number: int) -> None:
        if self._running.pop(number, None) is None:
            return  # the front has given the request up
        if failure.check(CancelledError):  # by the engine itself, and the client still waits
            failure = Failure(Unavailable("the request was given up", retry_after=0))
        self._refuse(failure, number)

    def _refuse_all(self, failure: Failure, numbers: list[int]) -> None:
        for number in numbers:
            self._refuse(failure, number)

    def _refuse(self, failure: Failure, number: int) -> None:
        error = failure.value
        assert error is not None
        self.channel.send((FAILURE, number, write_error(error)))
        clear_all_frames(error)

    def _call(self, message: Message) -> None:
        _, number, method, pattern, path, arguments, query, headers, body, peer, began = message
        head = CallHead(method, path, arguments, query, headers, ())
        try:
            call = Call(head, read_body(body, self.channel.reader), began, peer)
            deferred = self._answerer.reply(method, pattern, call, partial(self._send, number))
        except Exception:  # as above
            self._refuse(Failure(), number)
            return
        self._running[number] = deferred
        deferred.addCallbacks(
            self._ended, self._failed, callbackArgs=(number,), errbackArgs=(number,)
        )

    def _ended(self, _: object, number: int) -> None:
        self._running.pop(number, None)

    def _send(self, number: int, reply: Reply) -> None:
        file = None if reply.file is None else (str(reply.file.path), reply.file.nbytes)
        body = write_body(reply.body, self.channel.lender)
        head = (reply.status, reply.content_type, body, reply.headers, reply.model, file)
        self.channel.send((REPLY, number, *head))
