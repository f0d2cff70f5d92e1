"""The front's end: asks the engine, and stands in for it where endpoints decode requests.

| a request | goes |
|---|---|
| of a route that infers, for a model that answers | decoded, as ASK |
| of a route that infers, for any other model | whole, as CALL: the engine knows the error |
| of any other route | whole, as CALL |

An engine that has ended answers nothing more: whatever waits for an answer fails at once, and so
does what comes until the next engine is there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.codecs.content_coding import CodedBody
from batcher.core.epoch import Epoch
from batcher.core.request import (
    NO_PARAMETERS,
    BatchOutputs,
    InferenceRequest,
    InferenceResponse,
    OutputRows,
)
from batcher.errors import BuffersFull, Unavailable
from batcher.frontends.endpoints.call import Call, FileBody, Reply
from batcher.frontends.link.arrays import read_arrays, write_arrays
from batcher.frontends.link.channel import Channel
from batcher.frontends.link.frames import Message
from batcher.frontends.link.gathering import Asks, is_small
from batcher.frontends.link.messages import (
    ANSWER,
    ASK,
    CALL,
    CANCEL,
    FAILURE,
    MODELS,
    REPLY,
    UNSENT,
    read_body,
    read_error,
    write_body,
)
from batcher.frontends.link.models import Described, Key, read_models
from batcher.serving.metrics import ServerMetrics
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.servable import Servable
from batcher.workers.pools import Pools

RunOnDisk = Callable[[int, Callable[[], Any]], Deferred[Any]]
"""Runs a function that holds so many bytes on the thread for the disk."""


class NotHere(Exception):
    """The front does not know what answers; the engine does."""


class EngineLink:
    """Requests that the engine works on for this front. Reactor thread.

    Attributes:
        hear: hears each message that is about the front as a whole.
        generation: of the models that are known.
        max_unread_bytes: most bytes that wait for the engine to read them; nothing more is asked
            then.
    """

    def __init__(self, hear: Callable[[Message], None], run_on_disk: RunOnDisk) -> None:
        """Begin without an engine; `run_on_disk` reads files that the engine answers with."""
        self.hear = hear
        self.generation = -1
        self.max_unread_bytes = inf
        self._run_on_disk = run_on_disk
        self._channel: Channel | None = None
        self._waiting: dict[int, Deferred[Any]] = {}
        self._asks: dict[Key, Asks] = {}  # the last requests for each key that share a message
        self._last = 0
        self._reads = {REPLY: self._reply, FAILURE: _failure}

    @property
    def waiting(self) -> int:
        """How many requests wait for the engine."""
        return len(self._waiting)

    def connected(self, channel: Channel) -> None:
        """Ask the engine at the other end of `channel` from now on."""
        self._channel = channel

    def follow(self, generation: int) -> None:
        """Ask for models of `generation` from now on."""
        self.generation = generation
        self._asks.clear()  # what is in there leaves all the same

    def infer(self, key: Key, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Have the engine answer `request`, which asks for `key`; raises Unavailable."""
        number = self._last = self._last + 1
        asks = self._asks.get(key)
        if asks is None or not asks.add(number, self.generation, request):
            self._begin(number, key, request)
        return self._expect(number)

    def _begin(self, number: int, key: Key, request: InferenceRequest) -> None:
        """Ask in a message of its own; requests like this one that come this turn share it."""
        channel = self._reading_engine()
        if is_small(request.inputs, 1):
            asks = self._asks[key] = Asks(self.generation, key, request)
            channel.gather(asks)
            asks.add(number, self.generation, request)
            return
        given = request.parameters
        parameters = None if given is NO_PARAMETERS else tuple(given)
        inputs = write_arrays(request.inputs, channel.lender)
        head = (ASK, [number], self.generation, *key, request.rows)
        channel.send((*head, [parameters], inputs))

    def call(self, method: str, pattern: str, call: Call) -> Deferred[Reply]:
        """Have the engine answer `call` by the route of `method` and `pattern`; as `infer`."""
        channel, head = self._reading_engine(), call.head
        asked = (method, pattern, head.path, dict(head.arguments), head.query, dict(head.headers))
        body = write_body(call.body, channel.lender)
        number = self._last = self._last + 1
        channel.send((CALL, number, *asked, body, call.peer, call.began))
        return self._expect(number)

    def send(self, message: Message) -> None:
        """Send a message that is about no request; forget it without an engine."""
        if self._channel is not None:
            self._channel.send(message)

    def take(self, message: Message) -> None:
        """Hear one message of the engine."""
        kind = message[0]
        if kind == ANSWER:
            self._take_answers(message)
            return
        if kind == UNSENT:
            self._fail_all(message[1], message[2])
            return
        read = self._reads.get(kind)
        if read is None:
            self.hear(message)
            return
        try:
            # Also for a request that was given up: its part of the memory has to go back.
            result = read(message)
        except Exception:  # whatever it is, the request must not wait for ever
            result = Failure()
        self._end(message[1], result)

    def lost(self) -> None:
        """Fail what waits for the engine, which has ended."""
        self._channel = None
        self._asks.clear()
        waiting, self._waiting = self._waiting, {}
        for deferred in waiting.values():
            # It may have run: a client must not be told to send it again.
            text = "the server's engine ended while it worked on this request, and is started again"
            if not deferred.called:  # the failure of another may have given this one up
                deferred.errback(Unavailable(text, retry_after=0))

    @property
    def is_behind(self) -> bool:
        """Whether the engine has much to read before it reads what is sent now."""
        channel = self._channel
        return channel is not None and channel.unread_bytes > self.max_unread_bytes

    def _engine(self) -> Channel:
        if self._channel is None:
            raise Unavailable("the server's engine has ended, and is started again")
        return self._channel

    def _reading_engine(self) -> Channel:
        channel = self._engine()
        if self.is_behind:
            raise BuffersFull("the server's engine has not read earlier requests yet")
        return channel

    def _expect(self, number: int) -> Deferred[Any]:
        """Return what the answer to a request that was sent fires."""
        deferred: Deferred[Any] = Deferred(partial(self._give_up, number))
        self._waiting[number] = deferred
        return deferred

    def _give_up(self, number: int, _: Deferred[Any]) -> None:
        if self._waiting.pop(number, None) is not None:
            self.send((CANCEL, number))

    def _end(self, number: int, result: object) -> None:
        deferred = self._waiting.pop(number, None)
        if deferred is not None:
            deferred.callback(result)

    def _fail_all(self, numbers: list[int], failure: Failure) -> None:
        for number in numbers:
            self._end(number, failure)

    def _take_answers(self, message: Message) -> None:
        """Answer the requests that share a message."""
        numbers = message[1]
        try:
            responses = self._responses(message)
        except Exception:  # as for other messages
            self._fail_all(numbers, Failure())
            return
        for index, response in enumerate(responses):
            self._end(numbers[index], response)

    def _responses(self, message: Message) -> list[InferenceResponse]:
        _, _, model, version, outputs, counts, queues, compute, size, origin, steps = message
        arrays = read_arrays(outputs, self._engine().reader)
        if counts is None:
            queue = queues[0]
            # Not `*times`: compiled code would call this class as any function of Python's.
            return [InferenceResponse(model, version, arrays, queue, compute, size, origin, steps)]
        batch, start = BatchOutputs(arrays), 0
        found: list[InferenceResponse] = []
        for index, queue in enumerate(queues):
            stop = start + counts[index]
            rows = OutputRows(batch, start, stop)
            found.append(InferenceResponse(model, version, rows, queue, compute, size))
            start = stop
        return found

    def _reply(self, message: Message) -> Reply:
        _, _, status, content_type, written, headers, model, file = message
        body = read_body(written, self._engine().reader)
        assert not isinstance(body, CodedBody), "only bodies of requests are"
        place = None if file is None else FileBody(Path(file[0]), file[1], self._run_on_disk)
        return Reply(status, content_type, body, headers, model, place)


def _failure(message: Message) -> Failure:
    return Failure(read_error(message[2]))


class RemoteServable(Servable):
    """What answers requests of one key, in the engine. Reactor thread."""

    def __init__(
        self,
        key: Key,
        described: Described,
        engine: RemoteEngine,
        pools: Pools,
        seconds: Callable[[], float],
    ) -> None:
        """Stand for what is `described`; decode on `pools`."""
        super().__init__(described.spec, described.max_level, described.timeout, pools, seconds)
        self.reads_key, self.reads_client = described.reads_key, described.reads_client
        self.reads_freshness, self.reads_once = described.reads_freshness, described.reads_once
        self.picks_version, self.limits = described.picks_version, described.limits
        self._asked, self._engine = key, engine

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Have the engine answer `request`; its stages are there."""
        return self._engine.link.infer(self._asked, request)

    def successor(self) -> Servable:
        """Return what answers requests of the key now."""
        return self._engine.servables.get(self._asked, self)


class RemoteEngine:
    """The engine as endpoints see it that decode requests. Reactor thread.

    Attributes:
        link: asks the engine.
        metrics: what this front counts.
        seconds: the clock.
        fetcher: fetches files that clients name in place of inputs.
        servables: what answers, by what requests ask for.
        epoch: ends when the engine describes its models anew, and when it is gone.
    """

    def __init__(
        self,
        link: EngineLink,
        metrics: ServerMetrics,
        pools: Pools,
        fetcher: InputFetcher,
        seconds: Callable[[], float],
    ) -> None:
        """Know no model yet."""
        self.link, self.metrics, self.seconds, self.fetcher = link, metrics, seconds, fetcher
        self.servables: dict[Key, RemoteServable] = {}
        self.epoch = Epoch()
        self._pools = pools
        self._only = ""

    @property
    def traffic(self) -> RemoteEngine:
        """What says what answers a request."""
        return self

    def servable(self, name: str, version: str = "") -> Servable:
        """Return what answers requests for a version of a model; raises NotHere."""
        found = self.servables.get((name, version))
        if found is None:
            raise NotHere
        return found

    def only_model(self) -> str:
        """Return the name of the only model there is; raises NotHere."""
        if not self._only:
            raise NotHere
        return self._only

    def named(self, text: str) -> str:
        """Return the name of the model that `text` in a request means; empty if none is known."""
        if not text:
            return self._only
        return text if (text, "") in self.servables else ""

    def follow(self, message: Message) -> None:
        """Know the models that MODELS describes."""
        assert message[0] == MODELS
        _, generation, data = message
        self.link.follow(generation)
        described, self._only = read_models(data)
        around = (self, self._pools, self.seconds)
        self._begin({key: RemoteServable(key, each, *around) for key, each in described.items()})

    def forget(self) -> None:
        """Know no model: the engine is gone."""
        self._only = ""
        self._begin({})

    def _begin(self, servables: dict[Key, RemoteServable]) -> None:
        self.servables = servables
        self.epoch.over = True
        self.epoch = Epoch()
