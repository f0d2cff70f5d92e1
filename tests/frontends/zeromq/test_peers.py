"""Clients that do not read: what waits for them is bounded, and others are not harmed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batcher.frontends.zeromq.peers import (
    ANSWER_COST_BYTES,
    MAX_PEER_REQUESTS,
    PEER_SHARE,
    TRACKED_BYTES,
    WINDOW_BYTES,
)
from tests.frontends.zeromq.conftest import OTHER, PEER, Wire, infer
from tests.support.http import MemoryServer

LARGE = bytes(TRACKED_BYTES)


@pytest.fixture
def wire() -> Wire:
    """Return a front with two clients that have their answers."""
    wire = Wire(MemoryServer(max_buffer_bytes=40_000_000))
    for peer in (PEER, OTHER):
        wire.ask(1, *infer(1), peer=peer)
    return wire


def answer(wire: Wire, number: int, *parts: Any, identity: bytes = PEER) -> None:
    """Have the front answer a client."""
    peer = wire.peers.get(identity)
    assert peer is not None
    wire.peers.answer(peer, number.to_bytes(8, "big"), [b"\x80", *parts])


def numbers(wire: Wire) -> list[int]:
    """Return the ids of the answers that the library has got since."""
    found, wire.port.answers = wire.port.answers, []
    return [each.number for each in found]


def test_answers_wait_in_their_order_until_the_client_reads(wire: Wire) -> None:
    wire.port.full.add(PEER)
    for number in (1, 2, 3):
        answer(wire, number, b"12")
    answer(wire, 1, identity=OTHER)
    assert numbers(wire) == [1]
    assert wire.counts.waiting_bytes == 3 * (11 + ANSWER_COST_BYTES)
    wire.port.full.clear()
    answer(wire, 4)
    assert numbers(wire) == [], "it does not overtake the others"
    wire.peers.flush(10)
    assert numbers(wire) == [1, 2, 3, 4]
    assert (wire.counts.waiting_bytes, wire.peers.has_blocked) == (0, False)


def test_large_answers_wait_until_earlier_ones_have_gone_out(wire: Wire) -> None:
    most = WINDOW_BYTES // TRACKED_BYTES
    for number in range(most + 2):
        answer(wire, number, LARGE)
    assert len(numbers(wire)) == most
    wire.peers.flush(10)
    assert numbers(wire) == []
    for unread in wire.port.unread[:2]:
        unread.done = True
    wire.peers.flush(10)
    assert numbers(wire) == [most, most + 1]


def test_an_answer_that_waits_holds_nothing_of_its_batch(wire: Wire) -> None:
    wire.port.full.add(PEER)
    batch = np.zeros(100, np.uint8)
    answer(wire, 1, batch.data)
    batch[:] = 1
    wire.port.full.clear()
    wire.peers.flush(10)
    assert wire.port.answers[-1].parts == [bytes(100)]


def test_one_client_that_does_not_read_gets_errors_in_place_of_too_many_bytes(wire: Wire) -> None:
    wire.port.full.add(PEER)
    share = 40_000_000 // PEER_SHARE
    for number in range(4):
        answer(wire, number, bytes(share // 2 - 1000))
    assert wire.counts.dropped_answers == 2
    assert wire.counts.waiting_bytes <= share + 4 * ANSWER_COST_BYTES
    answer(wire, 9, bytes(share), identity=OTHER)
    assert numbers(wire) == [9]
    wire.port.full.clear()
    for _ in range(4):
        wire.peers.flush(10)
        for unread in wire.port.unread:
            unread.done = True
    found = wire.port.answers
    assert [each.number for each in found] == [0, 1, 2, 3]
    assert [each.header.get("code") for each in found] == [None, None, *["buffers_full"] * 2]


def test_all_clients_together_have_a_bound_too() -> None:
    wire = Wire(MemoryServer(max_buffer_bytes=100_000))
    identities = [bytes([0, 0, 0, 1, number]) for number in range(10)]
    for number, peer in enumerate(identities):
        wire.port.descriptors[peer] = 100 + number
        wire.ask(1, *infer(1), peer=peer)
        wire.port.full.add(peer)
    for peer in identities * 3:
        answer(wire, 1, bytes(10_000), identity=peer)
    assert wire.counts.waiting_bytes <= 100_000
    for number in range(10):
        wire.peers.left(100 + number)
    assert (wire.counts.waiting_bytes, len(wire.peers)) == (0, 0)


def test_so_many_answers_wait_and_no_more(wire: Wire) -> None:
    wire.port.full.add(PEER)
    for number in range(MAX_PEER_REQUESTS):
        answer(wire, number)
    assert wire.peers.get(PEER).is_full  # type: ignore[union-attr]
    for number in range(3):
        wire.send(5000 + number, *infer(1))
    assert wire.server.model.sizes() == [1, 1], "nothing more runs for this client"
    assert len(wire.peers.get(PEER).waiting) == MAX_PEER_REQUESTS + 3  # type: ignore[union-attr]
    assert wire.counts.dropped_answers == 0
    wire.port.full.clear()
    wire.peers.flush(10)
    refused = [each for each in wire.port.answers if each.number >= 5000]
    assert [each.number for each in refused] == [5000, 5001, 5002], "who reads learns of each"
    assert {each.header["code"] for each in refused} == {"queue_full"}


def test_refusals_that_nobody_reads_have_a_bound() -> None:
    wire = Wire(MemoryServer(max_buffer_bytes=8 << 20))
    wire.ask(1, *infer(1))
    wire.port.full.add(PEER)
    for number in range(MAX_PEER_REQUESTS + 5000):
        wire.send(5000 + number, *infer(1))
    assert wire.peers.get(PEER).is_full  # type: ignore[union-attr]
    assert wire.counts.dropped_answers > 1000
    assert wire.counts.waiting_bytes <= (8 << 20) // PEER_SHARE + ANSWER_COST_BYTES


def test_a_client_that_has_gone_is_forgotten_with_what_waits(wire: Wire) -> None:
    wire.port.full.add(PEER)
    answer(wire, 1)
    wire.send(2, *infer(1))
    wire.port.gone.add(PEER)
    wire.peers.flush(10)
    assert wire.peers.get(PEER) is None
    assert (wire.answered(), wire.counts.waiting_bytes, wire.counts.peers) == ([], 0, 1)
