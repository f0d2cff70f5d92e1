"""Files that requests name: order, bounds, ends, and what is kept; a thread is stepped by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from batcher.config.settings import ServerSettings
from batcher.core.references import InputSources, Reference
from batcher.errors import (
    BuffersFull,
    DeadlineExceeded,
    InputMissing,
    InputSourceFailed,
    InvalidInput,
    QueueFull,
    TooLarge,
)
from batcher.serving.references.fetcher import MAX_AT_ONCE, MAX_FILES, InputFetcher
from batcher.serving.references.metrics import FetchCounts
from batcher.serving.references.source import Fetch, Fetched, GivenUp
from batcher.workers.fair_queue import FairQueue
from batcher.workers.pool import CpuPool

A, B, C = (f"s3://photos/{name}" for name in "abc")


class HeldThreads:
    """The threads of a pool, of which a test has the first task run.

    Attributes:
        most: how many there are.
        running: tasks that a thread has.
    """

    def __init__(self, most: int, name: str, queue: FairQueue[Any]) -> None:
        self.most = most
        self.running: list[Any] = []
        self._queue = queue
        self._waiting: list[Any] = []

    def add(self, task: Any) -> None:
        self._queue.put(task)
        self._waiting.append(task)
        self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self.running) < self.most:
            task = self._queue.take()
            self._waiting.remove(task)
            self.running.append(task)

    def remove(self, task: Any) -> bool:
        if task not in self._waiting:
            return False
        self._waiting.remove(task)
        self._queue.remove(task)
        return True

    def run(self, index: int = 0) -> None:
        """Run a task that a thread has to its end."""
        task = self.running.pop(index)
        task.run()
        self._queue.done(task, 0.0)
        task.ended()
        self._begin()

    def stop(self) -> None:
        pass


class Bucket:
    """A source whose files are in memory.

    Attributes:
        files: content by name; an exception is raised.
        events: what was asked: the name, and the tag that is known.
        fetches: those that began.
    """

    def __init__(self) -> None:
        self.files: dict[str, Any] = {"a": b"A", "b": b"BB", "c": b"CCC"}
        self.events: list[tuple[str, str]] = []
        self.fetches: list[Fetch] = []

    def read(self, name: str, tag: str, fetch: Fetch) -> Fetched | None:
        self.events.append((name, tag))
        self.fetches.append(fetch)
        fetch.left()
        content = self.files[name]
        if isinstance(content, Exception):
            raise content
        fetch.check_size(len(content), name)
        now = f"tag of {content[:8]!r}"
        return None if tag == now else Fetched(content, now)


class Fetching:
    """A fetcher, its clock, its one thread and its bucket."""

    def __init__(self, **more: Any) -> None:
        settings = {"input_sources": ["s3://photos/"], "input_fetches": 1, **more}
        self.clock = Clock()
        self.clock.advance(1000)
        self.bucket = Bucket()
        made: list[HeldThreads] = []

        def make(*arguments: Any) -> HeldThreads:
            made.append(HeldThreads(*arguments))
            return made[0]

        parsed = ServerSettings.model_validate(settings)
        with patch("batcher.workers.pool.DaemonThreads", make):
            tasks, call = parsed.cpu_pool_tasks, self.clock.callLater
            self.pool = CpuPool(
                parsed.input_fetches, tasks, 1, lambda *each: call(0, *each), self.clock, "input"
            )
        self.threads = made[0]
        self.counts = FetchCounts()
        parts = (parsed, self.pool, self.clock.seconds, self.counts)
        self.fetcher = InputFetcher(*parts, self._open)

    def _open(self, reference: Reference, sources: InputSources) -> Bucket:
        return self.bucket

    def fetch(
        self, *addresses: str, seconds: float = 5.0, client: str = "", beside: int = 0
    ) -> Deferred[dict[str, bytes]]:
        return self.fetcher.fetch(addresses, self.clock.seconds() + seconds, client, beside)

    def run(self, times: int = 1) -> None:
        """Let the thread end as many tasks."""
        for _ in range(times):
            self.threads.run()
            self.clock.advance(0)

    def check_nothing_is_left(self) -> None:
        assert self.pool.tasks == 0
        assert self.fetcher._held == 0
        self.clock.advance(60)
        assert not self.clock.getDelayedCalls()


CASE = SynchronousTestCase()
result_of, error_of, nothing_of = (
    CASE.successResultOf,
    CASE.failureResultOf,
    CASE.assertNoResult,
)


@pytest.fixture
def fetching() -> Iterator[Fetching]:
    found = Fetching()
    yield found
    found.check_nothing_is_left()


def test_all_files_of_a_request_come_together_and_each_once(fetching: Fetching) -> None:
    fetched = fetching.fetch(A, B, A)
    fetching.run()
    nothing_of(fetched)
    fetching.run()
    assert result_of(fetched) == {A: b"A", B: b"BB"}
    assert fetching.bucket.events == [("a", ""), ("b", "")]


def test_a_file_is_used_while_it_is_fresh_and_then_asked_for_by_its_tag(fetching: Fetching) -> None:
    for _ in range(2):
        fetching.fetch(A)
        if fetching.threads.running:
            fetching.run()
    assert fetching.bucket.events == [("a", "")]
    fetching.clock.advance(11)
    unchanged = fetching.fetch(A)
    fetching.run()
    assert result_of(unchanged) == {A: b"A"}
    fetching.clock.advance(11)
    fetching.bucket.files["a"] = b"other"
    changed = fetching.fetch(A)
    fetching.run()
    assert result_of(changed) == {A: b"other"}
    assert [tag for _, tag in fetching.bucket.events] == ["", "tag of b'A'", "tag of b'A'"]
    assert fetching.counts.outcomes == {"fetched": 2, "kept": 1, "unchanged": 1}
    assert fetching.counts.nbytes == len(b"A" + b"other")
    assert fetching.counts.kept == fetching.fetcher._kept.nbytes


def test_a_fetch_that_waited_for_a_thread_finds_what_another_has_brought(
    fetching: Fetching,
) -> None:
    first, second = fetching.fetch(A), fetching.fetch(A)
    fetching.run(2)
    assert result_of(first) == result_of(second) == {A: b"A"}
    assert len(fetching.bucket.events) == 1


def test_the_first_failure_is_that_of_the_request_and_ends_the_others() -> None:
    fetching = Fetching(input_fetches=2)
    fetching.bucket.files["a"] = InputMissing("none")
    fetched = fetching.fetch(A, B, C)
    fetching.run()
    error_of(fetched, InputMissing)
    fetching.run(2)
    assert fetching.bucket.fetches[0].is_given_up
    for fetch in fetching.bucket.fetches[1:]:
        with pytest.raises(GivenUp):
            fetch.left()
    assert fetching.counts.outcomes == {"failed": 3}
    fetching.check_nothing_is_left()


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_a_client_that_leaves_ends_its_fetches(fetching: Fetching, begun: int) -> None:
    fetched = fetching.fetch(A, B, C)
    fetching.run(begun)
    fetched.cancel()
    error_of(fetched, CancelledError)
    assert fetching.fetcher._held == 0
    assert fetching.pool.tasks == 1  # the one that a thread has
    fetching.run()
    assert fetching.bucket.fetches[-1].is_given_up


def test_a_deadline_ends_the_fetch_and_names_the_file(fetching: Fetching) -> None:
    fetched = fetching.fetch(A, B, seconds=2)
    fetching.clock.advance(2)
    error = error_of(fetched, DeadlineExceeded).value
    assert re.search("the deadline passed while 's3://photos/[ab]' was being fetched", str(error))
    fetching.run()
    assert fetching.bucket.fetches[0].is_given_up


def test_a_thread_that_sees_the_deadline_first_says_the_same(fetching: Fetching) -> None:
    fetching.bucket.files["a"] = GivenUp()
    fetched = fetching.fetch(A)
    fetching.run()
    error_of(fetched, DeadlineExceeded)


@pytest.mark.parametrize("error", [TooLarge("x"), InputSourceFailed("x"), InvalidInput("x")])
def test_errors_are_never_kept(fetching: Fetching, error: Exception) -> None:
    fetching.bucket.files["a"] = error
    failed = fetching.fetch(A)
    fetching.run()
    error_of(failed, type(error))
    fetching.bucket.files["a"] = b"A"
    fetched = fetching.fetch(A)
    fetching.run()
    assert result_of(fetched) == {A: b"A"}


def test_files_are_bounded_alone_together_and_in_number() -> None:
    fetching = Fetching(max_body_bytes=4)
    fetching.bucket.files["a"] = bytes(5)
    large = fetching.fetch(A)
    fetching.run()
    error_of(large, TooLarge)
    together = fetching.fetch(B, C)
    fetching.run(2)
    error_of(together, TooLarge)
    with pytest.raises(InvalidInput, match=f"at most {MAX_FILES} files"):
        fetching.fetch(*(f"s3://photos/{number}" for number in range(MAX_FILES + 1)))
    fetching.check_nothing_is_left()


def test_bytes_that_wait_for_others_of_their_requests_are_bounded() -> None:
    fetching = Fetching(max_buffer_bytes=4, input_cache_bytes=1, input_fetches=2)
    waits = fetching.fetch(C, B)
    fetching.run()
    refused = fetching.fetch(B, A)
    fetching.threads.run(1)
    fetching.clock.advance(0)
    nothing_of(waits)
    error_of(refused, BuffersFull)
    waits.cancel()
    error_of(waits, CancelledError)
    while fetching.threads.running:
        fetching.run()
    fetching.check_nothing_is_left()


def test_bodies_that_wait_for_files_are_bounded_and_do_not_count_as_files() -> None:
    fetching = Fetching(max_buffer_bytes=9, max_body_bytes=3)
    waits = fetching.fetch(C, beside=6)
    with pytest.raises(BuffersFull):
        fetching.fetch(A, beside=4)
    fetching.run()
    assert result_of(waits) == {C: b"CCC"}
    left = fetching.fetch(A, beside=9)
    left.cancel()
    error_of(left, CancelledError)
    fetching.run()
    fetching.check_nothing_is_left()


def test_fetches_that_wait_are_bounded_and_one_client_leaves_room_for_others() -> None:
    fetching = Fetching(cpu_pool_tasks=8)
    many = fetching.fetch(*(f"s3://photos/{number}" for number in range(8)), client="1")
    error_of(many, QueueFull)
    fetched = fetching.fetch(A, client="2")
    while fetching.threads.running:
        fetching.run()
    assert result_of(fetched) == {A: b"A"}
    fetching.check_nothing_is_left()


def test_a_request_of_many_files_begins_some_after_the_others(fetching: Fetching) -> None:
    names = [str(number) for number in range(3 * MAX_AT_ONCE)]
    fetching.bucket.files |= {name: name.encode() for name in names}
    fetching.fetch("s3://photos/0")
    fetching.run()
    fetched = fetching.fetch(*(f"s3://photos/{name}" for name in names))
    while fetching.threads.running:
        assert fetching.pool.tasks <= MAX_AT_ONCE
        fetching.run()
    assert result_of(fetched) == {f"s3://photos/{name}": name.encode() for name in names}
    assert [name for name, _ in fetching.bucket.events] == names


def test_kept_files_stay_within_their_bytes() -> None:
    fetching = Fetching(input_cache_bytes=16_000)
    for number in range(100):
        fetching.bucket.files[str(number)] = bytes(1000)
        fetching.fetch(f"s3://photos/{number}")
        fetching.run()
    kept = fetching.fetcher._kept
    assert 14_000 < kept.nbytes <= 16_000
    assert kept.peek("s3://photos/99") is not None
    assert kept.peek("s3://photos/0") is None


def test_an_address_that_stands_a_thousand_times_is_checked_once(fetching: Fetching) -> None:
    with patch.object(InputSources, "find", autospec=True, side_effect=InputSources.find) as find:
        fetched = fetching.fetch(*[A, B] * 1000)
    assert find.call_count == 2
    fetching.run(2)
    assert result_of(fetched) == {A: b"A", B: b"BB"}


def test_nothing_is_fetched_before_every_address_was_checked(fetching: Fetching) -> None:
    with pytest.raises(InvalidInput, match=r"ref: expected an address below .* \(input_sources\)"):
        fetching.fetch(A, "s3://other/b")
    assert fetching.bucket.events == []


def test_without_prefixes_nothing_is_fetched_and_prefixes_may_change() -> None:
    fetching = Fetching(input_sources=[])
    assert not fetching.fetcher.is_on
    with pytest.raises(InvalidInput, match="this server fetches no files"):
        fetching.fetch(A)
    fetching.fetcher.follow(ServerSettings(input_sources=("s3://photos/",)))
    fetched = fetching.fetch(A)
    fetching.run()
    assert result_of(fetched) == {A: b"A"}
    fetching.fetcher.follow(ServerSettings(input_sources=("s3://others/",)))
    with pytest.raises(InvalidInput):
        fetching.fetch(A)
