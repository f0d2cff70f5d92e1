"""The pool in front of the child: bounds, deadlines, and requests that are given up."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from twisted.internet.defer import CancelledError, Deferred

from batcher.errors import DeadlineExceeded, Draining, QueueFull
from batcher.workers.codec_process.pool import REST_AFTER_S, CodecPool
from tests.support.crossing import Loop

FAR = 1000.0


@pytest.fixture
def loop() -> Loop:
    """The loop's side."""
    return Loop()


@pytest.fixture
def pool(loop: Loop) -> Iterator[CodecPool]:
    """A pool of 4 tasks and 100 bytes."""
    pool = CodecPool(4, 100, loop.call_from_thread, loop.clock)
    yield pool
    pool.stop()


def sleep_in_child(
    loop: Loop, pool: CodecPool, deadline: float = FAR
) -> tuple[int, Deferred[None]]:
    """Return the child's process id, and a call that would take long."""
    pid = loop.wait_for(pool.call(1, FAR, "", os.getpid))
    assert isinstance(pid, int)
    return pid, pool.call(1, deadline, "", time.sleep, 1000)


def test_calls_are_answered_on_the_loop_in_order(loop: Loop, pool: CodecPool) -> None:
    answers: list[int] = []
    calls = [pool.call(1, FAR, "", len, bytes(size)) for size in range(3)]
    for each in calls:
        each.addCallback(answers.append)
    loop.wait_for(calls[-1])
    assert answers == [0, 1, 2]


def test_a_call_for_which_there_is_no_room_is_refused_at_once(loop: Loop, pool: CodecPool) -> None:
    held = pool.call(90, FAR, "", len, b"")
    with pytest.raises(QueueFull):
        pool.call(20, FAR, "", len, b"")
    assert loop.wait_for(held) == 0
    assert loop.wait_for(pool.call(20, FAR, "", len, b"")) == 0


def test_a_client_that_leaves_frees_the_child_for_the_next(loop: Loop, pool: CodecPool) -> None:
    pid, long = sleep_in_child(loop, pool)
    after = pool.call(1, FAR, "", os.getpid)
    while not pool.is_busy:
        pass
    long.cancel()
    assert isinstance(loop.error_of(long), CancelledError)
    assert loop.wait_for(after) != pid


def test_a_call_that_takes_too_long_is_answered_and_its_child_ended(
    loop: Loop, pool: CodecPool
) -> None:
    pid, long = sleep_in_child(loop, pool, deadline=5.0)
    while not pool.is_busy:
        pass
    loop.clock.advance(5.0)
    assert isinstance(loop.error_of(long), DeadlineExceeded)
    assert loop.wait_for(pool.call(1, FAR, "", os.getpid)) != pid


def test_a_child_without_work_is_ended_after_a_while(loop: Loop, pool: CodecPool) -> None:
    pid = loop.wait_for(pool.call(1, FAR, "", os.getpid))
    loop.clock.advance(REST_AFTER_S)
    assert loop.wait_for(pool.call(1, FAR, "", os.getpid)) != pid


def test_a_stopped_pool_leaves_no_timer_and_takes_nothing(loop: Loop, pool: CodecPool) -> None:
    loop.wait_for(pool.call(1, FAR, "", len, b""))
    pool.stop()
    assert not loop.clock.getDelayedCalls()
    with pytest.raises(Draining):
        pool.call(1, FAR, "", len, b"")
