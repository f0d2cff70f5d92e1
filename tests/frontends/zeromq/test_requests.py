"""Requests over ZeroMQ: answers, errors, deadlines, priorities, keys, cancellation."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.quota import Quota
from batcher.frontends.zeromq.messages import MAX_PARTS
from batcher.frontends.zeromq.peers import MAX_PEER_REQUESTS
from tests.frontends.zeromq.conftest import OTHER, PEER, Answer, Wire, infer
from tests.support.http import ROW, MemoryServer
from tests.support.models import RecordingModel, model_spec, tensor

CALL = {"path": "/predict", "headers": {"content-type": "application/octet-stream"}}
JSON = {"path": "/predict", "headers": {"content-type": "application/json"}}


def values(answer: Answer) -> list[float]:
    """Return the first element of each row of the only output."""
    (entry,) = answer.header["outputs"]
    return np.frombuffer(answer.parts[0], "<f4").reshape(entry["shape"])[:, 0].tolist()


class TestAnInference:
    def test_is_answered_with_its_own_rows_in_raw_parts(self, wire: Wire) -> None:
        header, part = infer(1, 5, id="i")
        answer = wire.ask(1, header, part)
        assert values(answer) == [2, 10]
        outputs = [{"name": "y", "datatype": "FP32", "shape": [2, 4]}]
        assert answer.header == {
            "status": 200,
            "model_name": "m",
            "model_version": "1",
            "id": "i",
            "outputs": outputs,
        }

    def test_shares_batches_with_others_and_gets_its_own_rows(self, wire: Wire) -> None:
        for number in range(1, 9):
            wire.send(number, *infer(number), peer=PEER if number % 2 else OTHER)
        answers = wire.answered()
        assert wire.server.model.sizes() == [8]
        assert {each.number: values(each) for each in answers} == {
            number: [2 * number] for number in range(1, 9)
        }
        assert all((each.peer == PEER) == bool(each.number % 2) for each in answers)

    def test_with_a_header_that_came_before_is_counted_and_logged(self, wire: Wire) -> None:
        for number in (1, 2):
            assert values(wire.ask(number, *infer(number))) == [2 * number]
        lines = [json.loads(line) for line in wire.server.lines]
        assert [(line["route"], line["model"], line["status"]) for line in lines] == [
            ("zeromq:infer", "m", 200)
        ] * 2
        assert lines[0]["peer"] == "192.0.2.1"
        assert len(wire.requests.known.kept) == 1

    def test_whose_deadline_passes_is_a_504(self, wire: Wire) -> None:
        wire.send(1, *infer(parameters={"timeout": 1_000_000}))
        wire.server.hand_over()
        wire.server.clock.advance(1.1)
        (answer,) = wire.port.answers
        assert (answer.header["status"], answer.header["code"]) == (504, "deadline_exceeded")

    def test_of_a_higher_priority_goes_first(self) -> None:
        defaults: Any = {"max_batch_size": 1}
        wire = Wire(MemoryServer(defaults=defaults))
        wire.send(1, *infer(1))  # it is with the worker already
        wire.server.turn()
        wire.send(2, *infer(2, parameters={"priority": 3}))
        wire.send(3, *infer(3, parameters={"priority": 1}))
        assert [answer.number for answer in wire.answered()] == [1, 3, 2]

    def test_beyond_a_keys_quota_is_refused(self) -> None:
        quotas = {"SECRET": Quota(rows_per_s=0.25, burst_rows=2)}
        wire = Wire(MemoryServer(quotas=quotas))
        headers = {"authorization": "Bearer SECRET"}
        assert wire.ask(1, *infer(1, 2, headers=headers)).header["status"] == 200
        refused = wire.ask(2, *infer(1, headers=headers)).header
        assert (refused["status"], refused["headers"]) == (429, {"retry-after": "4"})
        assert wire.ask(3, *infer(1, 2, 3)).header["status"] == 200

    def test_of_texts_is_answered_with_texts(self) -> None:
        spec = model_spec((tensor("x", "BYTES", ()),), (tensor("y", "BYTES", ()),))
        wire = Wire(MemoryServer(RecordingModel(spec, lambda inputs: {"y": inputs["x"]})))
        entry = {"name": "x", "datatype": "BYTES", "shape": [2]}
        part = b"\1\0\0\0a\2\0\0\0bc"
        answer = wire.ask(1, {"model_name": "m", "inputs": [entry]}, part)
        assert answer.parts == [part]

    def test_that_is_taken_back_is_never_answered(self, wire: Wire) -> None:
        wire.send(1, *infer(1))
        wire.send(2, *infer(2))
        wire.send(1, {"cancel": True})
        assert [answer.number for answer in wire.answered()] == [2]
        assert [json.loads(line)["status"] for line in wire.server.lines] == [499, 200]
        wire.server.check_nothing_is_left()

    def test_whose_id_is_free_again_gets_its_own_answer(self, wire: Wire) -> None:
        wire.send(1, *infer(1))
        wire.server.hand_over()
        wire.send(1, {"cancel": True})
        assert values(wire.ask(1, *infer(5))) == [10]

    @pytest.mark.parametrize(
        ("header", "parts", "status"),
        [
            (b"\xc1", [], 400),
            ([], [], 400),
            ({}, [], 400),
            ({"model_name": "other", "inputs": []}, [], 404),
            ({"model_name": "m"}, [ROW], 400),
            (infer(1)[0], [], 400),
            (infer(1)[0], [ROW, ROW], 400),
            (infer(1)[0], [ROW[:-1]], 400),
            (infer(1, headers={"X": "1"})[0], [ROW], 400),
            (infer(1, headers={"x": "\n"})[0], [ROW], 400),
            (infer(1, parameters={"priority": "high"})[0], [ROW], 400),
            ({"cancel": 1}, [], 400),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_that_is_wrong_is_one_error(
        self, wire: Wire, header: Any, parts: list[bytes], status: int
    ) -> None:
        answer = wire.ask(1, header, *parts)
        assert (answer.header["status"], answer.parts) == (status, [])
        assert answer.header["error"]
        assert values(wire.ask(2, *infer(2))) == [4]


class TestACall:
    def test_is_answered_as_http_answers_it(self, wire: Wire) -> None:
        answer = wire.ask(1, CALL, ROW)
        assert answer.header["status"] == 200
        assert np.frombuffer(answer.parts[0], "<f4").tolist() == [2] * 4
        answer = wire.ask(2, JSON, b'{"instances": ', b"[[1, 2, 3, 4]]}")
        assert json.loads(answer.parts[0]) == {"outputs": {"y": [[2, 4, 6, 8]]}}

    def test_may_ask_for_what_is_read_alone(self, wire: Wire) -> None:
        ready = wire.ask(1, {"path": "/readyz", "method": "GET"})
        assert ready.header["status"] == 200
        meta = wire.ask(2, {"path": "/v2/models/m", "method": "GET"})
        assert json.loads(meta.parts[0])["name"] == "m"

    def test_is_counted_by_the_protocol_it_came_by(self, wire: Wire) -> None:
        wire.ask(1, CALL, ROW)
        (line,) = map(json.loads, wire.server.lines)
        assert (line["route"], line["path"]) == ("zeromq:/predict", "/predict")

    def test_echoes_its_request_id(self, wire: Wire) -> None:
        headers = {**CALL["headers"], "x-request-id": "abc"}  # type: ignore[dict-item]
        answer = wire.ask(1, {**CALL, "headers": headers}, ROW)
        assert answer.header["headers"]["x-request-id"] == "abc"

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ({"path": "/nowhere"}, 404),
            ({"path": "/v2/repository/models/m/unload"}, 404),
            ({"path": "predict"}, 400),
            ({"path": "/predict", "method": "PUT"}, 400),
            ({"path": "/predict", "headers": {"content-type": "text/nothing"}}, 415),
            ({"path": "/predict", "headers": {"content-encoding": "gzip"}}, 415),
        ],
        ids=str,
    )
    def test_that_is_wrong_is_one_error(self, wire: Wire, header: Any, status: int) -> None:
        answer = wire.ask(1, header, ROW)
        assert answer.header["status"] == status
        assert wire.ask(2, CALL, ROW).header["status"] == 200


class TestAClient:
    def test_that_leaves_takes_its_requests_along(self, wire: Wire) -> None:
        wire.send(1, *infer(1))
        wire.send(2, *infer(2), peer=OTHER)
        wire.peers.left(7)
        assert [answer.peer for answer in wire.answered()] == [OTHER]
        assert (len(wire.peers), wire.counts.peers) == (1, 1)
        wire.server.check_nothing_is_left()

    def test_that_has_chosen_its_identity_is_refused(self, wire: Wire) -> None:
        wire.send(1, *infer(1), peer=b"me")
        assert (wire.refused, len(wire.peers)) == ([b"me"], 0)
        wire.send(1, *infer(1))
        assert len(wire.answered()) == 1

    def test_that_left_before_its_message_was_read_harms_nobody(self, wire: Wire) -> None:
        wire.port.descriptors = {PEER: 7, OTHER: 7}  # the one has the other's number now
        wire.send(1, *infer(1), peer=OTHER)
        wire.send(2, *infer(2), peer=PEER)
        assert [answer.peer for answer in wire.answered()] == [OTHER]

    def test_whose_number_is_anothers_now_is_forgotten(self, wire: Wire) -> None:
        wire.port.descriptors = {PEER: 7, OTHER: 7}
        wire.send(1, *infer(1), peer=PEER)
        wire.send(2, *infer(2), peer=OTHER)
        assert [answer.peer for answer in wire.answered()] == [OTHER]
        assert len(wire.peers) == 1

    def test_that_names_an_id_twice_is_told(self, wire: Wire) -> None:
        wire.send(1, *infer(1))
        wire.send(1, *infer(2))
        first, second = wire.answered()
        assert first.header["status"] == 400
        assert values(second) == [2]

    def test_is_refused_beyond_its_number_of_requests(self, wire: Wire) -> None:
        for number in range(1, MAX_PEER_REQUESTS + 2):
            wire.send(number, *infer(1))
        (refused,) = wire.port.answers
        assert (refused.number, refused.header["code"]) == (MAX_PEER_REQUESTS + 1, "queue_full")
        wire.send(1, *infer(1), peer=OTHER)
        assert len(wire.answered()) == MAX_PEER_REQUESTS + 2

    def test_hears_that_the_server_is_about_to_end(self, wire: Wire) -> None:
        wire.ask(1, *infer(1))
        for peer in wire.peers:
            wire.requests.closing(peer)
        (notice,) = wire.port.answers
        assert (notice.number, notice.header) == (0, {"closing": True})


class TestAMessage:
    @pytest.mark.parametrize("parts", [[b""], [b"1234567"], [bytes(8) + b"\x80"]], ids=str)
    def test_without_an_id_is_ignored_and_counted(self, wire: Wire, parts: list[bytes]) -> None:
        wire.port.come(PEER, *parts)
        assert wire.messages.read(1000)
        assert (wire.answered(), wire.counts.ignored_messages) == ([], 1)

    def test_that_is_too_large_is_refused_and_its_parts_are_let_go(self) -> None:
        wire = Wire(MemoryServer(max_body_bytes=1000, max_header_bytes=500))
        header, part = infer(1)
        assert wire.ask(1, header, *[part] * 63).header["status"] == 413
        assert wire.ask(2, header, *[b""] * (MAX_PARTS + 1)).header["status"] == 413
        assert wire.ask(3, {"model_name": "m" * 500}).header["status"] == 431
        assert values(wire.ask(4, header, part)) == [2]

    def test_is_taken_over_several_turns(self, wire: Wire) -> None:
        header, part = infer(1)
        wire.port.come(PEER, (1).to_bytes(8, "big") + msgpack.packb(header), part)
        assert [wire.messages.read(1) for _ in range(4)] == [False, False, False, True]
        assert len(wire.answered()) == 1

    def test_with_a_header_that_came_before_has_its_small_parts_copied(self, wire: Wire) -> None:
        wire.ask(1, *infer(1))
        assert wire.port.copied == [True, False, False]
        wire.port.copied.clear()
        wire.ask(2, *infer(2))
        assert wire.port.copied == [True, True, True]

    @given(
        parts=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
        prefix=st.sampled_from([b"", b"12345678"]),
    )
    def test_of_any_bytes_is_an_error_or_nothing(self, parts: list[bytes], prefix: bytes) -> None:
        wire = Wire()
        wire.port.come(PEER, prefix + parts[0], *parts[1:])
        assert wire.messages.read(1000)
        assert all(answer.header["status"] in (400, 404) for answer in wire.answered())
        assert values(wire.ask(2, *infer(2))) == [4]
