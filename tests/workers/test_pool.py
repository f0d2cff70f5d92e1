"""The CPU pool, with real threads that are held by events.

Bounds, cancellation, deadlines, its end.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, get_ident
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from batcher.errors import DeadlineExceeded, QueueFull, Unavailable
from batcher.workers.pool import CpuPool
from tests.support.crossing import PATIENCE, Loop, no_more_threads

FAR = 1000.0


class Body:
    """A request's body, which can be referred to weakly."""


class Bench:
    """A pool of one thread that a test can hold."""

    def __init__(self, max_tasks: int = 8, max_bytes: int = 100) -> None:
        self.loop = Loop()
        self.pool = CpuPool(1, max_tasks, max_bytes, self.loop.call_from_thread, self.loop.clock)
        self.release = Event()

    def run(
        self,
        function: Callable[[], Any] = lambda: None,
        nbytes: int = 1,
        deadline: float = FAR,
        client: str = "",
    ) -> Deferred[Any]:
        return self.pool.run(nbytes, deadline, function, client)

    def hold(self, deadline: float = FAR, nbytes: int = 1) -> Deferred[Any]:
        """Occupy the thread until `release` is set."""
        entered = Event()

        def stuck() -> str:
            entered.set()
            assert self.release.wait(PATIENCE)
            return "released"

        held = self.run(stuck, nbytes, deadline)
        assert entered.wait(PATIENCE)
        return held

    def settle(self) -> None:
        """Release the thread and take back whatever is still there."""
        self.release.set()
        while self.pool.tasks:
            self.loop.step()
        assert self.pool.nbytes == 0


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.release.set()
    bench.pool.stop()


def error_of(deferred: Deferred[Any]) -> BaseException:
    """Return the exception that `deferred` has failed with already."""
    failures: list[Any] = []
    deferred.addErrback(failures.append)
    assert failures, "it has not failed yet"
    return failures[0].value


def test_a_function_runs_on_a_thread_and_is_answered_on_the_loop_s(bench: Bench) -> None:
    heard: list[int] = []
    answer = bench.run(get_ident)
    answer.addCallback(lambda ran: (heard.append(get_ident()), ran)[1])
    assert bench.loop.wait_for(answer) != bench.loop.thread
    assert heard == [bench.loop.thread]
    assert (bench.pool.tasks, bench.pool.nbytes) == (0, 0)


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)], ids=["error", "exit"])
def test_what_a_function_raises_is_its_answer_and_the_thread_lives_on(
    bench: Bench, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    assert bench.loop.error_of(bench.run(fail)) is error
    assert bench.loop.wait_for(bench.run(lambda: 7)) == 7
    assert bench.pool.tasks == 0


def test_one_task_more_than_its_bound_is_refused_at_once(bench: Bench) -> None:
    bench.hold()
    for number in range(7):
        bench.run(client=f"client {number}")
    with pytest.raises(QueueFull, match="8 of 8 tasks"):
        bench.run(client="one more")
    bench.settle()
    assert bench.loop.wait_for(bench.run(lambda: 7)) == 7


def test_more_bytes_than_its_bound_are_refused_at_once(bench: Bench) -> None:
    bench.hold(nbytes=60)
    with pytest.raises(QueueFull, match="60 of 100 bytes"):
        bench.run(nbytes=41, client="another")
    bench.run(nbytes=40, client="another")
    assert (bench.pool.tasks, bench.pool.nbytes) == (2, 100)
    bench.settle()


def test_a_task_that_is_refused_lets_go_of_its_body_at_once(bench: Bench) -> None:
    bench.hold(nbytes=60)
    body = Body()
    held = weakref.ref(body)
    gc.disable()
    try:
        with pytest.raises(QueueFull):
            bench.run(partial(id, body), nbytes=60)
        del body
        assert held() is None
    finally:
        gc.enable()
    bench.release.set()


def test_behind_one_client_s_flood_another_client_gets_in_and_is_next(bench: Bench) -> None:
    bench.hold()
    ran: list[str] = []
    for _ in range(5):
        bench.run(lambda: ran.append("flood"))
    with pytest.raises(QueueFull, match="full for this client, which has 6 tasks"):
        bench.run()
    last = bench.run(lambda: ran.append("other"), client="other")
    bench.release.set()
    bench.loop.wait_for(last)
    assert ran[0] == "other"
    bench.settle()
    assert ran == ["other", *["flood"] * 5]


def test_a_body_over_the_bound_has_the_pool_for_itself(bench: Bench) -> None:
    bench.hold(nbytes=500)
    with pytest.raises(QueueFull):
        bench.run(nbytes=1)
    bench.settle()


def test_a_task_cancelled_while_it_waits_never_runs_and_frees_its_place_and_its_body(
    bench: Bench,
) -> None:
    bench.hold(nbytes=60)
    ran: list[Body] = []
    body = Body()
    gone = weakref.ref(body)
    waiting = bench.run(lambda body=body: ran.append(body), nbytes=40, client="another")
    del body
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)
    gc.collect()
    assert gone() is None, "then and there, not when the thread comes to it"
    assert (bench.pool.tasks, bench.pool.nbytes) == (1, 60)
    bench.settle()
    assert ran == []


def test_a_task_cancelled_while_it_runs_gives_its_place_back_when_its_thread_does(
    bench: Bench,
) -> None:
    held = bench.hold(nbytes=60)
    held.cancel()
    assert isinstance(error_of(held), CancelledError)
    assert (bench.pool.tasks, bench.pool.nbytes) == (1, 60), "its body is still in use"
    bench.settle()
    assert bench.loop.wait_for(bench.run(lambda: 7)) == 7


def test_a_deadline_is_kept_while_the_thread_is_stuck(bench: Bench) -> None:
    held, waiting, patient = bench.hold(deadline=8.0), bench.run(deadline=9.0), bench.run(lambda: 7)
    bench.loop.clock.advance(8.0)
    assert isinstance(error_of(held), DeadlineExceeded)
    bench.loop.clock.advance(1.0)
    assert isinstance(error_of(waiting), DeadlineExceeded)
    bench.release.set()
    assert bench.loop.wait_for(patient) == 7
    bench.settle()


def test_a_task_that_expires_while_it_waits_never_runs_and_frees_its_body(bench: Bench) -> None:
    bench.hold()
    ran: list[Body] = []
    body = Body()
    gone = weakref.ref(body)
    waiting = bench.run(lambda body=body: ran.append(body), deadline=8.0)
    del body
    bench.loop.clock.advance(8.0)
    assert isinstance(error_of(waiting), DeadlineExceeded)
    gc.collect()
    assert gone() is None
    bench.settle()
    assert ran == []


def test_an_earlier_deadline_that_comes_later_is_kept_too(bench: Bench) -> None:
    bench.hold()
    answers = {deadline: bench.run(deadline=deadline) for deadline in (6.0, 2.0, 4.0)}
    for deadline in (2.0, 4.0, 6.0):
        bench.loop.clock.advance(1.0)
        assert not answers[deadline].called
        bench.loop.clock.advance(1.0)
        assert isinstance(error_of(answers[deadline]), DeadlineExceeded)
    assert len(bench.loop.clock.getDelayedCalls()) == 1, "one timer for all"
    bench.settle()


def test_an_answer_that_comes_in_time_is_not_followed_by_its_deadline(bench: Bench) -> None:
    answer = bench.run(lambda: 7, deadline=8.0)
    assert bench.loop.wait_for(answer) == 7
    bench.loop.clock.advance(9.0)
    assert bench.pool.tasks == 0


def test_tasks_that_are_cancelled_leave_nothing_behind_a_thread_that_hangs(bench: Bench) -> None:
    bench.hold()
    for _ in range(1000):
        waiting = bench.run(nbytes=99)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()
    assert (bench.pool.tasks, bench.pool.nbytes) == (1, 1)
    assert bench.pool._queue.waiting == 0
    bench.settle()


def test_a_thread_that_hangs_does_not_keep_a_program_from_ending() -> None:
    program = """
import threading
from twisted.internet.task import Clock
from batcher.workers.pool import CpuPool
pool = CpuPool(2, 8, 100, lambda function, *arguments: None, Clock())
entered = threading.Event()
def hang():
    entered.set()
    threading.Event().wait()
pool.run(1, 1e9, hang)
entered.wait()
pool.stop()
print("the end")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stdout) == (0, "the end\n"), ended.stderr


def test_a_finished_task_keeps_nothing_of_its_body(bench: Bench) -> None:
    body = Body()
    gone = weakref.ref(body)
    answer = bench.run(lambda body=body: id(body))
    del body
    bench.loop.wait_for(answer)
    gc.collect()
    assert gone() is None


def test_stopping_fails_what_waits_at_once_and_never_runs_it(bench: Bench) -> None:
    ran: list[int] = []
    held, waiting = bench.hold(), bench.run(lambda: ran.append(1))
    held.addErrback(lambda failure: failure.trap(Unavailable))
    bench.pool.stop()
    assert isinstance(error_of(waiting), Unavailable)
    bench.release.set()
    bench.loop.wait_for(held)
    bench.settle()
    assert ran == []
    assert bench.loop.clock.getDelayedCalls() == []


def test_after_stopping_more_is_refused_with_an_error_of_ours_and_nothing_is_left_behind(
    bench: Bench,
) -> None:
    bench.pool.stop()
    with pytest.raises(Unavailable):
        bench.run()
    assert bench.pool.tasks == 0
    assert bench.loop.clock.getDelayedCalls() == []


def test_a_task_that_is_stuck_when_the_pool_stops_is_answered_by_its_deadline(bench: Bench) -> None:
    held = bench.hold(deadline=8.0)
    bench.pool.stop()
    bench.loop.clock.advance(8.0)
    assert held.called, "every request ends, whatever its thread is doing"
    assert isinstance(error_of(held), Unavailable | DeadlineExceeded)
    assert bench.loop.clock.getDelayedCalls() == []
    bench.settle()


def test_stopping_may_be_asked_for_by_a_request_that_it_ends(bench: Bench) -> None:
    bench.hold().addErrback(lambda failure: failure.trap(Unavailable))
    answers = [bench.run() for _ in range(3)]
    for answer in answers:
        answer.addErrback(lambda failure: (bench.pool.stop(), failure)[1])
    bench.pool.stop()
    for answer in answers:
        assert isinstance(error_of(answer), Unavailable)


def test_where_there_are_no_more_threads_a_task_is_refused_and_takes_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(max_tasks=1)
    ran: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading, "_start_new_thread", no_more_threads)
        with pytest.raises(QueueFull, match="the CPU pool is full: can't start new thread"):
            bench.run(lambda: ran.append("refused"))
    answer = bench.run(lambda: ran.append("taken"))
    assert bench.loop.wait_for(answer) is None
    assert ran == ["taken"]
    bench.loop.clock.advance(FAR)
    bench.pool.stop()
    assert bench.loop.clock.getDelayedCalls() == []
