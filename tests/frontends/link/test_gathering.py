"""Requests and answers that share messages: each is answered as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.trial.unittest import SynchronousTestCase

from batcher.core.request import (
    NO_PARAMETERS,
    BatchOutputs,
    InferenceRequest,
    InferenceResponse,
    OutputRows,
    Parameters,
)
from batcher.errors import DeadlineExceeded, PredictedLate, Unavailable
from batcher.frontends.link.frames import FrameReader
from batcher.frontends.link.gathering import SHARED_BYTES, is_small
from batcher.frontends.link.messages import ANSWER, ASK
from tests.frontends.link.test_link import Both
from tests.support.models import model_spec, rows, tensor


class GatheringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.both = Both()
        self.both.serving.add_ready()
        free = model_spec((tensor("x", shape=(-1,)),), (tensor("y", shape=(-1,)),), name="free")
        self.both.serving.add_ready("free", spec=free)
        self.both.know()

    def tearDown(self) -> None:
        self.both.serving.end()

    def ask(self, array: Any, model: str = "m", **parameters: Any) -> Deferred[Any]:
        given = Parameters(**parameters) if parameters else NO_PARAMETERS
        return self.both.engine.servable(model).infer({"x": array}, given)

    def sent(self, end: int) -> list[Any]:
        """Return the messages that one end sends in this turn; they go through all the same."""
        self.both.turn()
        return FrameReader().feed(b"".join(self.both.wires[end].writes))

    def test_each_request_of_a_turn_is_answered_with_its_own_rows(self) -> None:
        narrow, wide = np.ones((1, 3), "<f4"), np.ones((1, 5), "<f4")
        asked = [
            (self.ask(rows(1)), rows(2)),
            (self.ask(narrow, "free"), narrow * 2),
            (self.ask(rows(2)), rows(4)),
            (self.ask(wide, "free"), wide * 2),
            (self.ask(rows(3, 4)), rows(6, 8)),
            (self.ask(wide * 3, "free"), wide * 6),
        ]
        assert [message[1] for message in self.sent(0)] == [[1, 3], [2], [4, 6], [5]]
        responses = self.both.answer_of(gatherResults([deferred for deferred, _ in asked]))
        for response, (_, expected) in zip(responses, asked, strict=True):
            np.testing.assert_array_equal(response.outputs["y"], expected)

    def test_answers_out_of_one_batch_share_a_message(self) -> None:
        batch = BatchOutputs({"y": rows(0, 1, 2, 3, 4, 5)})
        places = iter([(0, 1), (1, 3), (5, 6)])

        def infer(*arguments: Any) -> Deferred[InferenceResponse]:
            start, stop = next(places)
            cut = OutputRows(batch, start, stop)
            return succeed(InferenceResponse("m", "7", cut, start / 2, 2.5, 6))

        self.patch(self.both, "infer_for", lambda *_: infer)
        asked = [self.ask(rows(value)) for value in range(3)]
        self.sent(0)
        self.both.engine_end.data_received(self.both.wires[0].writes.pop())
        (message,) = self.sent(1)
        assert message[:2] == (ANSWER, [1, 2, 3])
        self.both.carry()
        for deferred, (start, stop) in zip(asked, [(0, 1), (1, 3), (5, 6)], strict=True):
            found = self.successResultOf(deferred)
            assert found.outputs["y"][:, 0].tolist() == list(range(start, stop))
            assert (found.model, found.version, found.queue) == ("m", "7", start / 2)
            assert (found.compute, found.batch_size) == (2.5, 6)

    def test_requests_that_share_a_message_have_their_own_parameters(self) -> None:
        stays, late, leaves = self.ask(rows(1)), self.ask(rows(2), deadline=-1.0), self.ask(rows(3))
        assert [message[:2] for message in self.sent(0)] == [(ASK, [1, 2, 3])]
        leaves.cancel()
        self.failureResultOf(leaves, CancelledError)
        assert self.both.answer_of(late).check(DeadlineExceeded, PredictedLate)
        assert self.both.answer_of(stays).outputs["y"][0, 0] == 2.0
        assert self.both.asking.waiting == self.both.answering.running == 0

    def test_a_message_has_no_more_rows_than_may_be_kept_for_one_request(self) -> None:
        array = np.ones((1, 1000), "<f4")
        asked = [self.ask(array, "free") for _ in range(40)]
        numbers = [message[1] for message in self.sent(0)]
        assert [len(each) for each in numbers] == [16, 16, 8]
        assert 16 * array.nbytes <= SHARED_BYTES < 17 * array.nbytes
        assert (self.both.answer_of(gatherResults(asked))[39].outputs["y"] == 2).all()

    def test_requests_whose_message_cannot_be_made_fail_and_no_others(self) -> None:
        no_rows = InferenceRequest("m", "1", {"x": np.array(1.0)}, 1)
        refused = [self.both.asking.infer(("m", ""), no_rows) for _ in range(2)]
        other = self.ask(np.ones((1, 3), "<f4"), "free")
        self.both.turn()
        for deferred in refused:
            self.failureResultOf(deferred, ValueError)
        assert (self.both.answer_of(other).outputs["y"] == 2).all()

    def test_answers_whose_message_cannot_be_made_are_failures(self) -> None:
        batch = BatchOutputs({"y": rows(0)})
        cut = OutputRows(batch, 0, 1)
        response = InferenceResponse("m", "1", cut, 0.0, 0.0, 1)
        self.patch(self.both, "infer_for", lambda *_: lambda *request: succeed(response))
        asked = self.ask(rows(1))
        self.both.turn()
        self.both.engine_end.data_received(self.both.wires[0].writes.pop())
        batch.arrays = {"y": np.array([5], object)}
        self.both.carry()
        assert "expected objects that are bytes" in str(self.failureResultOf(asked).value)
        assert self.both.answering.running == self.both.asking.waiting == 0

    def test_a_request_to_the_next_engine_shares_nothing_with_those_of_the_last(self) -> None:
        lost = self.ask(rows(1))
        self.both.front_end.connection_lost(None)
        self.failureResultOf(lost, Unavailable)
        last, self.both = self.both, Both()
        last.serving.end()
        self.both.serving.add_ready()
        self.both.know()
        last.asking.connected(self.both.front_end)
        self.both.front_end.peer = last.asking
        asked = last.asking.infer(("m", ""), InferenceRequest("m", "1", {"x": rows(2)}, 1))
        assert self.both.answer_of(asked).outputs["y"][0, 0] == 4.0


@pytest.mark.parametrize(
    ("array", "is_so"),
    [
        (np.ones((2, 1024), "<f4"), True),
        (np.ones((2, 1025), "<f4"), False),
        (np.array([[b"text"]], object), False),
    ],
)
def test_what_shares_a_message_is_small_and_of_numbers(array: Any, is_so: bool) -> None:
    assert is_small({"x": array}, len(array)) == is_so
