"""What clients can make all connections together hold, and who gives way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from batcher.frontends.web.buffers import READING_TIME_S, Buffers
from batcher.serving.metrics import ServerMetrics
from tests.frontends.web.listening.test_renewing import renew
from tests.support.http import ROW, MemoryServer, ask
from tests.support.transports import HIGH, Client

Serve = Callable[..., MemoryServer]

MIB = 1 << 20
KIB = 1 << 10
MANY = ROW * 20_000
"""Rows whose answer is 320 KB, much more than a transport takes from a client that does not
read.
"""
ROOMY = {"defaults": {"max_queue_rows": 1_000_000, "max_batch_size": 20_000}}


class Paper:
    """A holder that remembers whether it gave way."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self.gave_way = 0
        self.read: int | None = None  # what is left when somebody looks

    def hold(self, nbytes: int) -> None:
        self.buffers.hold(self, nbytes)

    def recount(self, now: float) -> None:
        if self.read is not None:
            self.hold(self.read)

    def give_way(self) -> None:
        self.gave_way += 1
        self.hold(0)


class TestAccounting:
    def buffers(self, most: int = 100) -> tuple[Buffers, Clock, ServerMetrics]:
        clock, metrics = Clock(), ServerMetrics()
        return Buffers(most, clock, metrics), clock, metrics

    def test_the_total_follows_each_holder_and_is_a_metric(self) -> None:
        buffers, _, metrics = self.buffers()
        one, other = Paper(buffers), Paper(buffers)
        for holder, nbytes, total in (
            (one, 40, 40),
            (other, 50, 90),
            (one, 10, 60),
            (one, 10, 60),
            (other, 0, 10),
            (one, 0, 0),
        ):
            holder.hold(nbytes)
            assert (buffers.nbytes, metrics.buffer_bytes) == (total, total)
            buffers.check_invariants()

    def test_whoever_holds_most_gives_way_soon_until_there_is_room(self) -> None:
        buffers, clock, _ = self.buffers()
        papers = [Paper(buffers) for _ in range(4)]
        for paper, nbytes in zip(papers, (30, 70, 60, 35), strict=True):
            paper.hold(nbytes)
        assert [paper.gave_way for paper in papers] == [0, 0, 0, 0]
        clock.advance(READING_TIME_S)
        assert [paper.gave_way for paper in papers] == [0, 1, 1, 0]
        assert buffers.nbytes == 65
        assert not clock.getDelayedCalls()

    def test_who_was_over_the_bound_for_less_than_that_costs_nobody_anything(self) -> None:
        buffers, clock, _ = self.buffers()
        one, other = Paper(buffers), Paper(buffers)
        one.hold(100)
        other.hold(1)
        other.hold(0)
        clock.advance(READING_TIME_S)
        one.hold(150)
        other.hold(10)
        one.read = 90
        clock.advance(READING_TIME_S)
        assert (one.gave_way, other.gave_way, buffers.nbytes) == (0, 0, 100)

    def test_one_alone_may_hold_more_than_there_is_room_for(self) -> None:
        buffers, clock, _ = self.buffers()
        one, other = Paper(buffers), Paper(buffers)
        one.hold(1000)
        clock.advance(READING_TIME_S)
        assert not one.gave_way
        other.hold(1)
        clock.advance(READING_TIME_S)
        assert (one.gave_way, other.gave_way) == (1, 0)

    def test_far_too_much_leaves_those_no_time_who_had_it(self) -> None:
        buffers, clock, _ = self.buffers()
        old, larger, new = Paper(buffers), Paper(buffers), Paper(buffers)
        old.hold(30)
        larger.hold(31)
        clock.advance(READING_TIME_S)
        new.hold(65)
        clock.advance(0)
        assert (old.gave_way, larger.gave_way, new.gave_way) == (0, 1, 0)
        clock.advance(READING_TIME_S)
        assert (old.gave_way, new.gave_way) == (0, 0), "there is room"

    def test_far_too_much_in_new_hands_waits_until_they_had_time_to_read(self) -> None:
        buffers, clock, _ = self.buffers()
        one, other = Paper(buffers), Paper(buffers)
        one.hold(70)
        other.hold(71)
        clock.advance(0)
        assert (one.gave_way, other.gave_way) == (0, 0)
        clock.advance(READING_TIME_S)
        assert (one.gave_way, other.gave_way) == (0, 1)

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.booleans())))
    def test_whatever_is_held_there_is_room_soon(self, steps: list[tuple[int, int, bool]]) -> None:
        buffers, clock, metrics = self.buffers()
        papers = [Paper(buffers) for _ in range(5)]
        for index, nbytes, turn in steps:
            papers[index].hold(nbytes)
            if turn:
                clock.advance(READING_TIME_S)
                assert buffers.nbytes <= buffers.max_bytes
            buffers.check_invariants()
            assert metrics.buffer_bytes == buffers.nbytes


def begin(server: MemoryServer, kind: str, nbytes: int, size: int = 20 * KIB) -> Client:
    """Return a client that has sent `nbytes` of a body of `size`."""
    client = server.connect(kind)
    client.send(ask("/predict", bytes(size))[: nbytes - size])
    server.turn()
    return client


def unread(server: MemoryServer, kind: str) -> Client:
    """Return a client that does not read a large answer."""
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", MANY))
    server.work()
    server.wait(READING_TIME_S)
    return client


class TestBodies:
    def test_what_has_come_of_a_body_is_counted_until_the_body_is_whole_or_its_client_gone(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve()
        first, second = begin(server, kind, 4 * KIB), begin(server, kind, 8 * KIB)
        assert 12 * KIB <= server.front.buffers.nbytes <= 14 * KIB
        assert (
            f"batcher_buffer_bytes {float(server.front.buffers.nbytes)}".encode()
            in server.server.metrics.render()
        )
        first.send(bytes(16 * KIB))
        assert 8 * KIB <= server.front.buffers.nbytes <= 10 * KIB
        second.reset()
        server.turn()
        assert server.front.buffers.nbytes == 0
        server.work()
        assert [answer.status for answer in first.answers] == [200]

    def test_a_body_in_pieces_takes_what_its_memory_takes(self, serve: Serve, kind: str) -> None:
        server = serve()
        client = begin(server, kind, 1, size=64 * KIB)
        for sent in range(4 * KIB, 64 * KIB, 4 * KIB):
            client.send(bytes(4 * KIB))
            assert sent <= server.front.buffers.nbytes <= sent * 9 // 8 + 256

    def test_a_small_request_that_comes_whole_is_not_counted_even_where_there_is_no_room(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_buffer_bytes=10 * KIB)
        begin(server, kind, 9 * KIB)
        client = server.connect(kind)
        for _ in range(3):
            client.send(ask("/predict", ROW))
            server.work()
        assert [answer.status for answer in client.answers] == [200, 200, 200]

    @pytest.mark.parametrize("size", [2 * KIB, 20 * KIB])
    def test_a_body_for_which_there_is_no_room_gets_503_and_no_other_is_harmed(
        self, serve: Serve, kind: str, size: int
    ) -> None:
        server = serve(max_buffer_bytes=10 * KIB)
        first = begin(server, kind, 9 * KIB)
        client = begin(server, kind, size - 1, size)
        (answer,) = client.answers
        assert (answer.status, answer.header("connection"), answer.header("retry-after")) == (
            503,
            "close",
            "1",
        )
        assert answer.decoded()["code"] == "buffers_full"
        assert client.ended
        assert not client.closed, "it may go on sending for a while, so that it reads the answer"
        first.send(bytes(11 * KIB))
        server.work()
        assert [answer.status for answer in first.answers] == [200]
        assert begin(server, kind, 8 * KIB).answers == [], "there is room again"

    def test_a_body_larger_than_all_room_is_read_where_it_is_alone(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_buffer_bytes=4 * KIB)
        client = begin(server, kind, 19 * KIB)
        client.send(bytes(KIB))
        server.work()
        assert [answer.status for answer in client.answers] == [200]

    def test_a_body_is_counted_as_it_is_without_its_coding(self, serve: Serve, kind: str) -> None:
        import zlib

        server = serve()
        body = zlib.compress(bytes(200 * KIB))
        client = server.connect(kind)
        client.send(ask("/predict", body, ("Content-Encoding", "deflate"))[:-1])
        server.turn()
        assert server.front.buffers.nbytes > 180 * KIB

    def test_a_body_that_is_large_without_its_coding_is_counted_as_it_was_sent(
        self, serve: Serve, kind: str
    ) -> None:
        import zlib

        server = serve()
        body = zlib.compress(bytes(MIB))
        client = server.connect(kind)
        client.send(ask("/predict", body, ("Content-Encoding", "deflate"))[:-1])
        server.turn()
        assert len(body) - 1 <= server.front.buffers.nbytes < 4 * KIB

    def test_the_requests_behind_which_a_body_waits_are_answered_before_it_is_refused(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_buffer_bytes=10 * KIB)
        begin(server, kind, 9 * KIB)
        client = server.connect(kind)
        client.send(ask("/predict", ROW) + ask("/predict", bytes(20 * KIB))[:-KIB])
        server.work()
        assert [answer.status for answer in client.answers] == [200, 503]

    def test_a_reload_changes_the_bound_for_what_comes_from_now_on(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve()
        first, second = begin(server, kind, 9 * KIB), begin(server, kind, 2 * KIB)
        renew(server, max_buffer_bytes=10 * KIB)
        second.send(bytes(KIB))
        server.turn()
        assert [answer.status for answer in second.answers] == [503]
        assert first.answers == []


class TestAnswers:
    def test_answers_that_are_not_read_are_counted_until_they_are(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(**ROOMY)
        client = unread(server, kind)
        assert server.front.buffers.nbytes > len(MANY) - HIGH
        client.read(200_000)
        server.wait(1)
        assert 0 < server.front.buffers.nbytes < len(MANY) - 150_000, "the sweep sees it"
        client.read()
        server.wait(1)
        assert server.front.buffers.nbytes == 0
        assert [answer.status for answer in client.answers] == [200]

    def test_answers_that_are_read_at_once_are_not_counted(self, serve: Serve, kind: str) -> None:
        server = serve(max_buffer_bytes=KIB, **ROOMY)
        clients = [server.connect(kind) for _ in range(3)]
        for client in clients:
            client.send(ask("/predict", MANY))
        server.work()
        assert [answer.status for client in clients for answer in client.answers] == [200, 200, 200]

    def test_answers_whose_turn_has_not_come_are_counted_until_they_are_sent(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(ask("/predict", ROW) + ask("/docs") * 3)
        server.turn()
        assert client.received == b""
        assert server.front.buffers.nbytes > 3 * KIB
        server.work()
        assert len(client.answers) == 4
        assert server.front.buffers.nbytes == 0

    def test_bodies_of_requests_that_have_not_begun_are_counted_until_they_do(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_pipelined_requests=1)
        client = server.connect(kind)
        client.send(ask("/predict", ROW) + ask("/predict", ROW * KIB))
        server.turn()
        assert server.front.buffers.nbytes == len(ROW) * KIB
        server.work()
        assert [answer.status for answer in client.answers] == [200, 200]
        assert server.front.buffers.nbytes == 0

    def test_the_client_with_most_unread_is_cut_off_and_the_others_keep_theirs(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_buffer_bytes=600_000, **ROOMY)
        first = unread(server, kind)
        body = begin(server, kind, 8 * KIB)
        second = unread(server, kind)
        assert [client.closed for client in (first, body, second)].count(True) == 1
        assert (first.aborted or second.aborted, body.closed) == (True, False)
        survivor = second if first.aborted else first
        survivor.read()
        server.wait(1)
        assert [answer.status for answer in survivor.answers] == [200]

    def test_a_body_gives_way_to_answers_where_it_is_what_holds_most(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_buffer_bytes=600_000, **ROOMY)
        body = begin(server, kind, 500_000, size=600_000)
        client = unread(server, kind)
        assert [answer.status for answer in body.answers] == [503]
        client.read()
        server.wait(1)
        assert [answer.status for answer in client.answers] == [200]

    def test_who_was_cut_off_is_told_nothing_more_and_what_it_asked_for_is_given_up(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_buffer_bytes=600_000, **ROOMY)
        client = server.connect(kind)
        client.stall()
        client.send(ask("/predict", MANY) * 4)
        server.turn()
        other = unread(server, kind)
        server.work()
        assert (client.closed, client.aborted, other.closed) == (True, True, False)
        assert len(MANY) - HIGH < server.front.buffers.nbytes < len(MANY) + KIB
