"""Daemon threads, real ones, held by events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event

import pytest

from batcher.workers.daemon_threads import DaemonThreads
from batcher.workers.fair_queue import FairQueue
from tests.support.crossing import PATIENCE, no_more_threads
from tests.support.interpreters import printed


class Held:
    """A task that occupies its thread until it is released."""

    def __init__(self, tell: Callable[[Held], object] = lambda task: None) -> None:
        self.began, self.release = Event(), Event()
        self.client, self.nbytes = "", 1
        self._tell = tell

    def run(self) -> None:
        self.began.set()
        assert self.release.wait(PATIENCE)

    def ended(self) -> None:
        self._tell(self)


def threads_of(most: int, name: str) -> DaemonThreads[Held]:
    return DaemonThreads(most, name, FairQueue("the threads", 100, 100))


def names(prefix: str) -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)}


def test_threads_start_with_tasks_as_far_as_allowed_and_wait_for_more() -> None:
    threads = threads_of(2, "two")
    assert names("two_") == set()
    tasks = [Held() for _ in range(3)]
    for task in tasks:
        threads.add(task)
    assert names("two_") == {"two_0", "two_1"}
    for task in tasks[:2]:
        assert task.began.wait(PATIENCE)
    assert not tasks[2].began.is_set()
    for task in tasks:
        task.release.set()
    assert tasks[2].began.wait(PATIENCE)
    threads.stop()


def test_a_thread_that_is_free_takes_a_task_instead_of_a_new_thread() -> None:
    threads = threads_of(8, "one")
    ended: SimpleQueue[Held] = SimpleQueue()
    for _ in range(5):
        task = Held(ended.put)
        task.release.set()
        threads.add(task)
        assert ended.get(timeout=PATIENCE) is task
        while not threads._idle:
            pass
    assert len(names("one_")) == 1
    threads.stop()


def test_a_task_that_is_removed_while_it_waits_never_runs() -> None:
    threads = threads_of(1, "gone")
    first, second, third = Held(), Held(), Held()
    for task in (first, second, third):
        threads.add(task)
    assert first.began.wait(PATIENCE)
    assert threads.remove(second) is True
    assert threads.remove(second) is False
    assert threads.remove(first) is False, "it has begun"
    third.release.set()
    first.release.set()
    assert third.began.wait(PATIENCE)
    assert not second.began.is_set()
    threads.stop()


def test_after_the_stop_nothing_begins_and_the_threads_end() -> None:
    threads = threads_of(1, "ends")
    first, second = Held(), Held()
    threads.add(first)
    assert first.began.wait(PATIENCE)
    threads.add(second)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "ends_0"]
    assert thread.daemon
    threads.stop()
    first.release.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not second.began.is_set()


def test_where_there_are_no_more_threads_those_that_are_there_do_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = threads_of(2, "none")
    with monkeypatch.context() as patched:
        patched.setattr(threading, "_start_new_thread", no_more_threads)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threads.add(Held())
    first, second = Held(), Held()
    threads.add(first)
    assert first.began.wait(PATIENCE)
    with monkeypatch.context() as patched:
        patched.setattr(threading, "_start_new_thread", no_more_threads)
        threads.add(second)
    second.release.set()
    first.release.set()
    assert second.began.wait(PATIENCE)
    threads.stop()


def test_a_task_has_left_the_queue_before_anybody_hears_that_it_ended() -> None:
    queue: FairQueue[Held] = FairQueue("the threads", 100, 100)
    threads: DaemonThreads[Held] = DaemonThreads(1, "left", queue)
    heard: SimpleQueue[int] = SimpleQueue()
    task = Held(lambda task: heard.put(queue.items))
    threads.add(task)
    assert (queue.items, queue.nbytes) == (1, 1)
    task.release.set()
    assert heard.get(timeout=PATIENCE) == 0
    threads.stop()


ENDING = """\
import os
from batcher.workers.daemon_threads import start_daemon, wait_at_exit

def work():
    sum(range(5_000_000))
    os.write(1, b"ended")

wait_at_exit(start_daemon(work, "ending"))
"""


def test_the_end_of_a_program_waits_for_threads_that_are_about_to_end() -> None:
    assert printed(ENDING) == "ended"
