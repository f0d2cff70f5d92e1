"""Deferreds that fire together."""

from __future__ import annotations

from twisted.python.failure import Failure

from batcher.core.waiters import Waiters


def test_all_that_wait_fire_once_and_who_comes_later_waits_for_the_next_time() -> None:
    waiters, fired = Waiters(), []
    for name in "ab":
        waiters.wait().addCallback(lambda _, name=name: fired.append(name))
    waiters.release()
    assert fired == ["a", "b"]
    waiters.wait().addCallback(lambda _: fired.append("c"))
    assert fired == ["a", "b"]
    waiters.release()
    waiters.release()
    assert fired == ["a", "b", "c"]


def test_who_waits_again_while_it_fires_waits_for_the_next_time() -> None:
    waiters, fired = Waiters(), []

    def again(_: None) -> None:
        fired.append("first")
        waiters.wait().addCallback(lambda _: fired.append("second"))

    waiters.wait().addCallback(again)
    waiters.release()
    assert fired == ["first"]
    waiters.release()
    assert fired == ["first", "second"]


def test_a_failure_reaches_all_that_wait() -> None:
    waiters, failures = Waiters(), []
    for _ in range(2):
        waiters.wait().addErrback(failures.append)
    assert len(waiters) == 2
    failure = Failure(ValueError("no"))
    waiters.release(failure)
    assert failures == [failure, failure]
    assert len(waiters) == 0
