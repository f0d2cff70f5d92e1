"""A front and the engine, both in this process, one message at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from batcher.config.settings import ServerSettings
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import ModelSpec
from batcher.errors import BuffersFull, Draining, InvalidInput, Unavailable, UnknownModel
from batcher.frontends.endpoints.call import Call, CallHead, FileBody, Reply
from batcher.frontends.link.answering import FrontLink
from batcher.frontends.link.asking import EngineLink, NotHere, RemoteEngine
from batcher.frontends.link.channel import Channel
from batcher.frontends.link.messages import LINE
from batcher.frontends.link.models import KnownModels
from batcher.serving.metrics import ServerMetrics
from batcher.serving.references.fetcher import InputFetcher
from batcher.workers.pools import make_pools
from tests.support.models import model_spec, rows, tensor
from tests.support.serving import SETTINGS, Serving

LARGE = np.ones((1, 100_000), "<f4")


class Wire:
    """The transport of one end: what it writes waits until the test lets it through."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.unread = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unread


class Both:
    """A server with its link, and a front that knows the server's models.

    Attributes:
        told: messages that are about one of the two as a whole.
    """

    def __init__(self) -> None:
        self.serving = Serving()
        self.soon: list[Callable[[], object]] = []
        self.told: list[Any] = []
        one, two = mmap(-1, 1 << 20), mmap(-1, 1 << 20)
        self.wires = Wire(), Wire()
        self.front_end = Channel(one, two, self.soon.append)
        self.engine_end = Channel(two, one, self.soon.append)
        self.asking = EngineLink(self.hear, lambda nbytes, function: succeed(function()))
        self.front_end.peer = self.asking
        self.answering = FrontLink(self.engine_end, self)
        self.engine_end.peer = self.answering
        self.front_end.connection_made(self.wires[0])
        self.engine_end.connection_made(self.wires[1])
        self.asking.connected(self.front_end)
        clock = self.serving.loop.clock
        pools = make_pools(ServerSettings(), self.serving.loop.call_from_thread, clock)
        metrics = ServerMetrics()
        fetcher = InputFetcher(ServerSettings(), pools.inputs, clock.seconds, metrics.fetches)
        self.engine = RemoteEngine(self.asking, metrics, pools, fetcher, clock.seconds)
        self.replies: dict[str, Any] = {}

    # What the engine's end asks for.

    def infer_for(self, *arguments: Any) -> Any:
        return self.known.infer_for(*arguments)

    def reply(self, method: str, pattern: str, call: Call, send: Any) -> Deferred[None]:
        self.told.append((method, pattern, call))
        return self.replies[pattern].addCallback(send)

    def hear(self, *message: Any) -> None:
        self.told.append(message[-1])

    def lost(self, link: FrontLink) -> None:
        self.told.append("lost")

    # What the test does.

    def know(self) -> None:
        """Have the front know the models as they are now, and whenever they change."""
        labels: Callable[[str], list[str]] = lambda name: ["stable"]  # noqa: E731
        self.known = KnownModels(self.serving.server, labels, self.soon.append, self.follow)
        self.follow(self.known.message)

    def follow(self, message: Any) -> None:
        self.engine.follow(message)

    def turn(self) -> None:
        """Make the calls that are due at the end of the turn."""
        soon, self.soon[:] = list(self.soon), []
        for call in soon:
            call()

    def carry(self) -> int:
        """Let everything through, in both directions; return the number of system calls."""
        calls = 0
        while self.soon or any(wire.writes for wire in self.wires):
            self.turn()
            for wire, other in zip(self.wires, (self.engine_end, self.front_end), strict=True):
                written, wire.writes = wire.writes, []
                calls += len(written)
                for data in written:
                    other.data_received(data)
        return calls

    def answer_of(self, deferred: Deferred[Any]) -> Any:
        """Let the engine work until `deferred` has fired."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.carry()
        self.serving.loop.clock.advance(0)
        self.carry()
        while not results:
            self.serving.loop.step()
            self.carry()
        return results[0]


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.both = Both()
        self.both.serving.add_ready()
        self.both.know()

    def tearDown(self) -> None:
        self.both.serving.end()

    def ask(self, *values: float, **parameters: Any) -> Deferred[Any]:
        servable = self.both.engine.servable("m")
        given = Parameters(**parameters) if parameters else NO_PARAMETERS
        return servable.infer({"x": rows(*values)}, given)

    def test_a_request_is_answered_with_its_own_result(self) -> None:
        asked = [self.ask(1), self.ask(2, 3)]
        for expected, deferred in zip(([2.0], [4.0, 6.0]), asked, strict=True):
            response = self.both.answer_of(deferred)
            assert response.outputs["y"][:, 0].tolist() == expected
            assert (response.model, response.version) == ("m", "1")
        assert self.both.asking.waiting == self.both.answering.running == 0

    def test_the_requests_of_one_turn_are_one_system_call(self) -> None:
        for value in range(20):
            self.ask(value)
        self.both.turn()
        assert len(self.both.wires[0].writes) == 1

    def test_a_version_and_a_label_are_known_by_their_names(self) -> None:
        assert self.both.engine.servable("m", "1").spec.version == "1"
        assert self.both.engine.only_model() == "m"
        assert (self.both.engine.named(""), self.both.engine.named("m")) == ("m", "m")
        assert self.both.engine.named("other") == ""
        with pytest.raises(NotHere):
            self.both.engine.servable("m", "2")
        with pytest.raises(NotHere):
            self.both.engine.servable("other")

    def test_a_request_that_is_refused_fails_with_the_reason(self) -> None:
        self.both.serving.server.drain()
        failure = self.both.answer_of(self.ask(1))
        assert failure.check(Draining)

    def test_parameters_come_over(self) -> None:
        failure = self.both.answer_of(self.ask(1, deadline=-1.0))
        assert failure.value.http_status in (503, 504)

    def test_a_client_that_leaves_gives_its_request_up(self) -> None:
        stays, leaves = self.ask(1), self.ask(2)
        self.both.carry()
        assert self.both.answering.running == 2
        leaves.cancel()
        self.failureResultOf(leaves, CancelledError)
        self.both.carry()
        assert self.both.answering.running == 1
        assert self.both.answer_of(stays).outputs["y"][0, 0] == 2.0

    def test_an_engine_that_ends_fails_every_request_and_what_comes_then(self) -> None:
        asked = [self.ask(1), self.ask(2)]
        self.both.carry()
        self.both.front_end.connection_lost(None)
        for deferred in asked:
            failure = self.failureResultOf(deferred, Unavailable)
            assert failure.value.retry_after == 0  # it may have run
        with pytest.raises(Unavailable) as refused:
            self.ask(3)
        assert refused.value.retry_after > 0

    def test_an_engine_that_ends_fails_every_request_whatever_one_of_them_gives_up(self) -> None:
        first, second, third = self.ask(1), self.ask(2), self.ask(3)
        failed: list[Any] = []
        first.addErrback(lambda _: second.cancel())
        second.addErrback(lambda failure: failed.append(failure.check(CancelledError)))
        self.both.front_end.connection_lost(None)
        assert failed == [CancelledError]
        self.failureResultOf(third, Unavailable)

    def test_a_request_that_the_engine_itself_gives_up_does_not_wait_for_ever(self) -> None:
        waits: Deferred[InferenceResponse] = Deferred()
        self.patch(self.both, "infer_for", lambda *arguments: lambda *request: waits)
        asked = self.ask(1)
        self.both.carry()
        waits.cancel()
        self.both.carry()
        assert self.failureResultOf(asked, Unavailable).value.retry_after == 0

    def test_an_engine_that_does_not_read_is_asked_nothing_more(self) -> None:
        self.both.asking.max_unread_bytes = 100
        self.both.wires[0].unread = 101
        with pytest.raises(BuffersFull):
            self.ask(1)
        assert self.both.asking.waiting == 0
        self.both.wires[0].unread = 100
        assert self.both.answer_of(self.ask(1)).outputs["y"][0, 0] == 2.0

    def test_an_answer_comes_over_with_its_times_and_those_of_its_steps(self) -> None:
        steps = [("first", 0.25, 0.5, 3), ("code", 0.0, 0.125, 0)]
        sent = InferenceResponse("m", "7", {"y": rows(1)}, 1.5, 2.5, 3, "hit", steps)
        self.patch(self.both, "infer_for", lambda *_: lambda *request: succeed(sent))
        found = self.both.answer_of(self.ask(1))
        for name in ("model", "version", "queue", "compute", "batch_size", "origin"):
            assert getattr(found, name) == getattr(sent, name)
        assert list(found.steps) == steps

    def test_a_front_that_ends_gives_up_its_requests_alone(self) -> None:
        asked = [self.ask(1), self.ask(2)]
        self.both.carry()
        self.both.engine_end.connection_lost(None)
        assert self.both.answering.running == 0
        assert self.both.told == ["lost"]
        for deferred in asked:
            self.assertNoResult(deferred)
        assert self.both.serving.values(self.both.serving.infer(3)) == [6.0]

    def test_a_request_for_a_model_that_was_replaced_is_looked_at_again(self) -> None:
        servable = self.both.engine.servable("m")
        self.replace(model_spec((tensor("x", shape=(5,)),), servable.spec.outputs))
        assert self.both.answer_of(servable.infer({"x": rows(1)})).check(InvalidInput)
        self.both.carry()
        now = self.both.engine.servable("m")
        assert now.spec.inputs[0].shape == (5,)
        assert servable.successor() is now

    def test_a_model_with_other_outputs_does_not_answer_what_its_front_would_misread(self) -> None:
        servable = self.both.engine.servable("m")
        other = model_spec(servable.spec.inputs, (tensor("y", "INT32", (2,)),))
        self.replace(other)
        refused = self.both.answer_of(servable.infer({"x": rows(1)}))
        assert refused.check(Unavailable)
        assert refused.value.retry_after == 1, "it has not run"
        self.both.carry()
        with pytest.raises(Unavailable, match="replaced meanwhile by one with others"):
            servable.infer_by_successor({"x": rows(1)}, NO_PARAMETERS)
        ask = self.both.known.infer_for(-5, ("m", ""))  # of a front that is far behind
        with pytest.raises(Unavailable):
            ask({"x": rows(1)}, 1, NO_PARAMETERS)

    def replace(self, spec: ModelSpec) -> None:
        """Have another model take the place of `m`; the front has not heard of it."""
        server, serving = self.both.serving.server, self.both.serving
        serving.loop.wait_for(server.unload(server.find("m")))
        serving.add_ready(spec=spec)

    def test_an_epoch_ends_with_the_models_that_are_known(self) -> None:
        before = self.both.engine.epoch
        self.both.engine.forget()
        assert before.over
        assert not self.both.engine.epoch.over
        with pytest.raises(NotHere):
            self.both.engine.servable("m")

    def test_large_arrays_use_the_shared_memory_again(self) -> None:
        wide = model_spec(
            (tensor("x", shape=(100_000,)),), (tensor("y", shape=(100_000,)),), name="wide"
        )
        self.both.serving.add_ready("wide", spec=wide, settings=SETTINGS)
        self.both.carry()
        for _ in range(12):  # three times what the region holds
            response = self.both.answer_of(self.both.engine.servable("wide").infer({"x": LARGE}))
            assert (response.outputs["y"] == 2).all()
            del response
        assert self.both.front_end.lender.lent <= 2
        assert self.both.engine_end.lender.lent <= 2

    def test_a_whole_request_is_answered_by_its_route(self) -> None:
        head = CallHead("POST", "/a/b%20c", {"name": "b c"}, "q=1", {b"accept": b"x"}, ())
        file = FileBody(Path("/tmp/x"), 7, lambda nbytes, function: succeed(function()))
        self.both.replies["/a/{name}"] = succeed(
            Reply(201, b"text/plain", b"answer", ((b"X-A", b"1"),), "m", file)
        )
        deferred = self.both.asking.call("POST", "/a/{name}", Call(head, b"body", 3.5, "1.2.3.4:5"))
        self.both.carry()
        reply = self.successResultOf(deferred)
        assert (reply.status, reply.content_type, reply.body) == (201, b"text/plain", b"answer")
        assert (reply.headers, reply.model) == (((b"X-A", b"1"),), "m")
        assert (reply.file.path, reply.file.nbytes) == (Path("/tmp/x"), 7)
        ((method, pattern, call),) = self.both.told
        assert (method, pattern, call.body, call.began) == ("POST", "/a/{name}", b"body", 3.5)
        assert (call.head.arguments, call.head.query) == ({"name": "b c"}, "q=1")
        assert call.peer == "1.2.3.4:5"
        assert call.head.headers == {b"accept": b"x"}

    def test_a_whole_request_that_fails_or_is_given_up_ends(self) -> None:
        head = CallHead("GET", "/a", {}, "", {}, ())
        waits: Deferred[Reply] = Deferred()
        self.both.replies.update({"/a": waits})
        with pytest.raises(KeyError):
            self.both.replies["/b"]
        refused = self.both.asking.call("GET", "/b", Call(head, b"", 0.0, ""))
        given_up = self.both.asking.call("GET", "/a", Call(head, b"", 0.0, ""))
        self.both.carry()
        assert self.failureResultOf(refused).type.__name__ == "KeyError"
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.both.carry()
        assert waits.called
        assert self.both.answering.running == 0

    def test_other_messages_are_for_the_front_or_the_engine_as_a_whole(self) -> None:
        self.both.asking.send((LINE, b"a line"))
        self.both.engine_end.send((99,))
        self.both.carry()
        assert self.both.told == [(LINE, b"a line"), (99,)]


def test_memory_of_a_front_that_has_ended_is_given_back_at_once() -> None:
    engine: Any = SimpleNamespace(lost=lambda link: None)
    channel = Channel(mmap(-1, 4096), mmap(-1, 4096), lambda call: None)
    channel.peer = FrontLink(channel, engine)
    wire: Any = Wire()
    wire.channel = channel  # as a transport has its protocol
    channel.connection_made(wire)
    memory = ref(channel.lender)
    gc.disable()
    try:
        channel.connection_lost(None)
        del channel, wire
        assert memory() is None
    finally:
        gc.enable()


def test_a_model_that_nobody_knows_is_no_error_of_the_description() -> None:
    serving = Serving()
    known = KnownModels(serving.server, lambda name: [], lambda call: None, lambda message: None)
    with pytest.raises(UnknownModel):
        known.infer_for(0, ("m", ""))({"x": rows(1)}, 1, NO_PARAMETERS)
    serving.end()
