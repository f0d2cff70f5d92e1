"""What the scheduler refuses on arrival, synchronously, and how it ends.

Bounds, draining, giving up.
"""

from __future__ import annotations

from sys import getsizeof

import numpy as np
import pytest

from batcher.batching.policies.delay import Delay
from batcher.core.request import nbytes_of
from batcher.errors import Draining, QueueFull, TooLarge
from tests.support.scheduling import Harness

ROW = 4 * 4
"""Bytes of one row of four floats."""


def test_a_full_queue_refuses_at_once_and_has_room_again_when_a_batch_leaves() -> None:
    harness = Harness(max_rows=4, max_batch_size=2)
    for value in range(4):
        harness.submit(value)
    with pytest.raises(QueueFull, match="4 of 4 rows"):
        harness.submit(9)
    assert harness.metrics.rejected_rows == {"queue_full": 1}
    assert harness.counts == (4, 4, 0)
    harness.turn()
    assert harness.counts == (4, 0, 4)
    answer = harness.submit(5)
    harness.finish()
    assert answer.values == [10]
    assert [9.0] not in [batch["x"][:, 0].tolist() for batch in harness.model.batches]


def test_bytes_fill_the_queue_as_well() -> None:
    harness = Harness(max_bytes=3 * ROW)
    harness.submit(1, 2)
    with pytest.raises(QueueFull, match=f"{2 * ROW} of {3 * ROW} bytes"):
        harness.submit(3, 4)
    assert harness.metrics.rejected_rows == {"queue_full": 2}
    harness.submit(3)
    assert harness.scheduler.queue_bytes == 3 * ROW


def test_a_request_that_could_never_fit_is_too_large() -> None:
    harness = Harness(max_rows=4, max_batch_size=2)
    with pytest.raises(TooLarge, match="at most 4 rows"):
        harness.submit(1, 2, 3, 4, 5)
    assert harness.metrics.rejected_rows == {"too_large": 5}
    assert harness.counts == (0, 0, 0)


def test_a_cut_request_is_refused_whole_or_not_at_all() -> None:
    harness = Harness(max_rows=4, max_batch_size=1)
    harness.submit(1, 2)
    with pytest.raises(QueueFull):
        harness.submit(3, 4, 5)
    assert harness.counts == (1, 2, 0)


def test_bytes_of_a_cut_request_are_given_back_to_the_last() -> None:
    harness = Harness(max_batch_size=2)
    answer = harness.submit(1, 2, 3)
    assert harness.scheduler.queue_bytes == 3 * ROW
    harness.cancel(answer)
    assert harness.scheduler.queue_bytes == 0


def test_arrays_of_empty_byte_strings_take_room_too() -> None:
    strings = np.full((1, 100_000), b"", dtype=object)
    assert nbytes_of({"x": strings}) >= 8 * strings.size, "each element is at least a reference"


def test_byte_strings_count_with_the_memory_of_their_objects() -> None:
    strings = np.array([[b"ab", b""]], dtype=object)
    assert nbytes_of({"x": strings}) == strings.nbytes + getsizeof(b"ab") + getsizeof(b"")


def test_what_is_no_byte_string_counts_with_the_memory_of_its_object() -> None:
    strings = np.array([[None, 7.5]], dtype=object)
    assert nbytes_of({"x": strings}) == strings.nbytes + getsizeof(None) + getsizeof(7.5)


def test_what_was_taken_is_answered_before_the_drain_is_over() -> None:
    harness = Harness(max_batch_size=2)
    answers = [harness.submit(value) for value in range(3)]
    ended: list[None] = []
    harness.scheduler.drain().addCallback(ended.append)
    harness.check()
    assert harness.events == ["handed 2"]
    with pytest.raises(Draining):
        harness.submit(9)
    assert harness.metrics.rejected_rows == {"draining": 1}
    harness.perform()
    assert not ended
    harness.perform()
    assert ended == [None]
    assert [answer.values for answer in answers] == [[0], [2], [4]]


def test_a_drain_without_requests_is_over_at_once() -> None:
    ended: list[None] = []
    Harness().scheduler.drain().addCallback(ended.append)
    assert ended == [None]


def test_each_drain_is_told_of_the_end() -> None:
    harness = Harness()
    harness.submit(1)
    ended: list[str] = []
    for name in ("first", "second"):
        harness.scheduler.drain().addCallback(lambda _, name=name: ended.append(name))
    assert not ended
    harness.perform()
    assert ended == ["first", "second"]
    harness.scheduler.drain().addCallback(lambda _: ended.append("third"))
    assert ended == ["first", "second", "third"]


def test_draining_ends_the_wait_of_delay() -> None:
    harness = Harness(Delay(4, 8.0))
    answer = harness.submit(1)
    harness.turn()
    assert harness.events == []
    harness.scheduler.drain()
    assert harness.metrics.flushes == {"drain": 1}
    harness.perform()
    assert answer.values == [2]


@pytest.mark.parametrize("last", ["cancelled", "expired"])
def test_a_drain_ends_also_when_the_last_request_does_without_an_answer(last: str) -> None:
    harness = Harness()
    harness.submit(1)
    harness.turn()
    waiting = harness.submit(2, deadline=8.0)
    ended: list[None] = []
    harness.scheduler.drain().addCallback(ended.append)
    harness.perform()
    if last == "cancelled":
        harness.cancel(waiting)
    else:
        harness.turn(9.0)
    assert not ended, "its row is still with the worker"
    harness.perform()
    assert ended == [None]
    assert harness.counts == (0, 0, 0)


def test_a_drain_ends_when_the_last_that_waits_is_cancelled() -> None:
    harness = Harness(places=1)
    running, waiting = harness.submit(1, 2, 3, 4), harness.submit(5)
    ended: list[None] = []
    harness.scheduler.drain().addCallback(ended.append)
    harness.cancel(waiting)
    harness.perform()
    assert running.values == [2, 4, 6, 8]
    assert ended == [None]
    assert harness.model.sizes() == [4]


def test_giving_up_fails_what_waits_and_what_runs_and_leaves_no_timer() -> None:
    harness = Harness(max_batch_size=2)
    answers = [harness.submit(1, 2), harness.submit(3, 4, 5), harness.submit(6)]
    harness.turn()
    assert harness.counts == (3, 2, 4)
    harness.scheduler.fail_all(Draining("stopped"))
    harness.check()
    assert [str(answer.error) for answer in answers] == ["stopped"] * 3
    assert harness.counts == (0, 0, 4)
    assert harness.clock.getDelayedCalls() == []
    harness.perform()
    harness.perform()
    assert harness.counts == (0, 0, 0)
    assert harness.clock.getDelayedCalls() == []


def test_after_giving_up_nothing_more_is_taken() -> None:
    harness = Harness()
    harness.scheduler.fail_all(Draining("stopped"))
    with pytest.raises(Draining):
        harness.submit(1)


def test_giving_up_ends_a_drain_when_the_worker_has_returned_its_batch() -> None:
    harness = Harness()
    harness.submit(1)
    ended: list[None] = []
    harness.scheduler.drain().addCallback(ended.append)
    harness.scheduler.fail_all(Draining("stopped"))
    assert not ended
    harness.perform()
    assert ended == [None]
