"""When memory that clients have let go of is given back."""

from __future__ import annotations

import ctypes
import sys
from threading import Event

import pytest

from batcher.app.heap_trim import (
    CHECK_INTERVAL_S,
    MIN_GROWTH_BYTES,
    MIN_TRIM_BYTES,
    HeapTrim,
    heap_trimmer,
    resident_bytes,
)
from batcher.frontends.web.buffers import Buffers
from batcher.serving.metrics import ServerMetrics
from batcher.workers.pool import CpuPool
from tests.support.crossing import Loop

MAX_BYTES = 10 * MIN_TRIM_BYTES


class Paper:
    """A holder."""

    def recount(self, now: float) -> None:
        """It holds what it said."""

    def give_way(self) -> None:
        raise AssertionError("there is room")


class Watched:
    """Holders and a process that are watched, and when the heap was trimmed.

    Attributes:
        resident: bytes that the process has.
        in_use: bytes that it has after a trim.
    """

    def __init__(self) -> None:
        self.loop = Loop()
        self.clock = self.loop.clock
        self.buffers = Buffers(MAX_BYTES, self.clock, ServerMetrics())
        self.pool = CpuPool(1, 1, MAX_BYTES, self.loop.call_from_thread, self.clock)
        self.trims: list[float] = []
        self.resident = 10 * MIN_GROWTH_BYTES
        self.in_use = self.resident
        holders = (self.buffers, self.pool)
        HeapTrim(holders, self.clock, self._trim, lambda: self.resident).start()

    def _trim(self) -> None:
        self.trims.append(self.clock.seconds())
        self.resident = self.in_use

    def pass_seconds(self, seconds: int) -> None:
        self.clock.pump([CHECK_INTERVAL_S] * int(seconds / CHECK_INTERVAL_S))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_it_is_trimmed_once_soon_after_clients_let_go_of_much(watched: Watched) -> None:
    client = Paper()
    watched.buffers.hold(client, MIN_TRIM_BYTES)
    watched.pass_seconds(5)
    assert watched.trims == [], "what is held cannot be given back"
    watched.buffers.hold(client, 0)
    watched.pass_seconds(5)
    assert watched.trims == [6 * CHECK_INTERVAL_S]


def test_what_comes_and_goes_between_two_looks_is_seen(watched: Watched) -> None:
    client = Paper()
    watched.buffers.hold(client, MIN_TRIM_BYTES)
    watched.buffers.hold(client, 0)
    watched.pass_seconds(1)
    assert len(watched.trims) == 1


def test_it_is_trimmed_again_when_more_is_let_go_of(watched: Watched) -> None:
    clients = [Paper(), Paper()]
    for client in clients:
        watched.buffers.hold(client, MIN_TRIM_BYTES)
    for trims, client in enumerate(clients, 1):
        watched.buffers.hold(client, 0)
        watched.pass_seconds(3)
        assert len(watched.trims) == trims


def test_little_is_kept_for_the_next(watched: Watched) -> None:
    client = Paper()
    for _ in range(5):
        watched.buffers.hold(client, MIN_TRIM_BYTES - 1)
        watched.buffers.hold(client, 0)
        watched.pass_seconds(1)
    assert watched.trims == []


def test_a_process_that_has_grown_is_trimmed_until_it_is_small_again(watched: Watched) -> None:
    watched.resident += MIN_GROWTH_BYTES - 1
    watched.pass_seconds(5)
    assert watched.trims == [], "a little growth is no reason"
    watched.resident += 1
    watched.pass_seconds(1)
    assert len(watched.trims) == 1
    assert watched.resident == watched.in_use
    watched.pass_seconds(500)
    assert len(watched.trims) == 1


def test_memory_that_is_in_use_for_a_while_is_given_back_afterwards(watched: Watched) -> None:
    floor = watched.in_use
    watched.resident = watched.in_use = 2 * floor
    watched.pass_seconds(20)
    tried = len(watched.trims)
    assert 1 < tried < 6, "trims that gain nothing become rarer"
    watched.in_use = floor
    watched.pass_seconds(30)
    assert len(watched.trims) == tried + 1
    assert watched.resident == floor


def test_memory_that_stays_in_use_becomes_the_floor_and_growth_above_it_counts(
    watched: Watched,
) -> None:
    watched.resident = watched.in_use = 2 * watched.in_use
    watched.pass_seconds(200)
    tried = len(watched.trims)
    assert tried == 7, "after 1, 2, 4, 8, 16, 32 and 64 seconds"
    watched.pass_seconds(10_000)
    assert len(watched.trims) == tried
    watched.resident += MIN_GROWTH_BYTES
    watched.pass_seconds(1)
    assert len(watched.trims) == tried + 1


def test_the_process_tells_what_it_has() -> None:
    before = resident_bytes()
    held = b"x" * (64 << 20)  # so much is always mapped anew
    assert resident_bytes() - before > len(held) // 2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_glibc_trims() -> None:
    trim = heap_trimmer()
    assert trim is not None
    assert trim() in (0, 1)


def test_nothing_is_trimmed_where_the_c_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: sys)
    assert heap_trimmer() is None


def test_a_pool_that_let_go_of_much_has_it_trimmed_too(watched: Watched) -> None:
    release = Event()
    done = watched.pool.run(MIN_TRIM_BYTES, 1000.0, release.wait)
    watched.pass_seconds(2)
    assert watched.trims == []
    release.set()
    watched.loop.wait_for(done)
    watched.pass_seconds(1)
    assert watched.trims == [3 * CHECK_INTERVAL_S]
