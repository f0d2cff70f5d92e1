"""The list that a client follows, and what it does when nobody lists anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from twisted.internet.task import Clock

from batcher.client import AnswerLost, ClientFailure, NotConnected, balancer
from batcher.client.attempts import Attempts, ClientOptions, checked_options
from batcher.client.balancer import RETRY_S, Balancer, Course, Listed
from batcher.client.listed_server import ListedServer, listed
from batcher.client.request_building import infer_operation
from batcher.client.response_reading import HttpResponse, InferResult

A, B, C = "http://a", "http://b", "http://c"
NOBODY = NotConnected("refused")


class Registry:
    """A registry that says what a test wants."""

    place = "the registry"
    period_s = 5.0

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.is_closed = False

    def servers(self) -> list[ListedServer]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return listed(answer)

    def close(self) -> None:
        self.is_closed = True


class Calls(NamedTuple):
    """What a form has for one server."""

    options: ClientOptions
    ended: list[str]

    def close(self) -> None:
        self.ended.append(self.options.address.host)


class World:
    """A balancer on a clock; its thread's work is done when a test says so.

    Attributes:
        jobs: what threads of the balancer's would do.
        ready: addresses that a probe finds ready.
    """

    def __init__(self, source: Any, is_inline: bool = True) -> None:
        self.clock = Clock()
        self.jobs: list[Callable[[], object]] = []
        self.is_inline = is_inline
        self.ready: set[str] = set()
        self.probed: list[str] = []
        self.ended: list[str] = []
        self.balancer = Balancer(source, self._made, self._probe, seconds=self.clock.seconds)

    def start(self, job: Callable[[], object]) -> None:
        job() if self.is_inline else self.jobs.append(job)

    def _made(self, address: str) -> Calls:
        return Calls(checked_options(address, 9, 3), self.ended)

    def _probe(self, address: str) -> bool:
        self.probed.append(address)
        return address in self.ready

    def known(self) -> None:
        self.balancer.wait(lambda: None)

    def asked(self, calls: int = 40) -> set[str]:
        """Return the servers that some of so many calls go to."""
        found = [self.balancer.take("m", ()) for _ in range(calls)]
        for each in found:
            self.balancer.give_back(each, None)
        return {each.server.address for each in found}

    def fail(self, address: str, failure: Exception) -> None:
        while (upstream := self.balancer.take("m", ())).server.address != address:
            self.balancer.give_back(upstream, None)
        self.balancer.give_back(upstream, failure)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def made(source: Any, is_inline: bool = True) -> World:
        found = World(source, is_inline)
        monkeypatch.setattr(balancer, "start_daemon", found.start)
        return found

    return made


def test_a_list_is_followed_while_there_are_calls(world: Callable[..., World]) -> None:
    registry = Registry([A, B], [B, C])
    several = world(registry)
    assert registry.asked == 0
    several.known()
    assert several.asked() == {A, B}
    several.clock.advance(4.9)
    assert several.asked() == {A, B}
    assert registry.asked == 1
    several.clock.advance(1000)
    assert registry.asked == 1
    several.asked()
    assert registry.asked == 2
    assert several.asked() == {B, C}
    assert several.ended == ["a"]


@pytest.mark.parametrize("answer", [OSError("down"), [], ["no address"]], ids=str)
def test_the_last_list_stays_where_the_registry_is_away(
    world: Callable[..., World], answer: Any
) -> None:
    registry = Registry([A, B], answer, answer, [C])
    several = world(registry)
    several.known()
    several.clock.advance(5)
    for _ in range(2):
        assert several.asked() == {A, B}
        several.clock.advance(RETRY_S)
    several.asked()
    assert registry.asked == 4
    assert several.asked() == {C}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OSError("down"), "got none: down"),
        ([], "got none: it lists nobody"),
        (["ftp://x"], "got 'ftp://x'"),
    ],
    ids=str,
)
def test_a_first_list_that_does_not_come_is_told_and_asked_for_again(
    world: Callable[..., World], answer: Any, reason: str
) -> None:
    registry = Registry(answer, [A])
    several = world(registry)
    woken: list[str] = []
    assert several.balancer.wait(lambda: woken.append("first"))
    with pytest.raises(NotConnected, match=reason):
        several.balancer.take("m", ())
    assert several.balancer.wait(lambda: woken.append("second"))
    assert not several.balancer.wait(lambda: woken.append("nobody"))
    assert woken == ["first", "second"]
    assert several.asked() == {A}


def test_who_waits_while_a_list_is_asked_for_gets_that_list(world: Callable[..., World]) -> None:
    several = world(Registry([A]), False)
    woken: list[int] = []
    assert all(several.balancer.wait(lambda: woken.append(1)) for _ in range(3))
    (job,) = several.jobs
    job()
    assert len(woken) == 3
    assert several.asked() == {A}


def test_no_call_waits_for_a_list_that_is_old(world: Callable[..., World]) -> None:
    several = world(Registry([A], [B]))
    several.known()
    several.is_inline = False
    several.clock.advance(60)
    assert several.asked() == {A}
    (job,) = several.jobs
    job()
    assert several.asked() == {B}


def test_a_server_is_probed_once_its_time_has_come_and_comes_back(
    world: Callable[..., World],
) -> None:
    several = world(Listed(listed([A, B])))
    several.fail(A, NOBODY)
    several.clock.advance(0.9)
    assert (several.asked(), several.probed) == ({B}, [])
    several.clock.advance(0.1)
    assert (several.asked(), several.probed) == ({B}, [A])
    several.ready.add(A)
    several.clock.advance(2)
    several.asked()
    assert several.probed == [A, A]
    assert several.asked() == {A, B}


def test_a_closed_client_asks_nobody_and_lets_waiting_calls_go(
    world: Callable[..., World],
) -> None:
    registry = Registry([A])
    several = world(registry, False)
    woken: list[int] = []
    assert several.balancer.wait(lambda: woken.append(1))
    several.balancer.close()
    for job in several.jobs:
        job()
    assert (woken, registry.asked, registry.is_closed) == ([1], 0, True)
    assert not several.balancer.wait(lambda: woken.append(2))


def test_a_system_without_threads_keeps_no_call_waiting(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = world(Registry([A]))

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(balancer, "start_daemon", refuse)
    woken: list[int] = []
    assert several.balancer.wait(lambda: woken.append(1))
    assert woken == [1]
    monkeypatch.setattr(balancer, "start_daemon", several.start)
    several.known()
    assert several.asked() == {A}


def test_a_forked_process_begins_with_no_calls_and_no_thread(
    world: Callable[..., World],
) -> None:
    several = world(Registry([A], [B]), False)
    several.known()
    several.balancer.begin_anew()
    several.is_inline = True
    several.known()
    several.balancer.take("m", ())
    several.balancer.begin_anew()
    several.clock.advance(5)
    several.asked(1)
    assert several.asked() == {B}
    assert several.ended == ["a"]


def attempts_of(call: Attempts[InferResult], course: Course) -> str:
    address = course.take(call).server.address
    call.next_request(0.0)
    return address


def test_a_lost_answer_is_asked_for_where_it_is_kept_and_nowhere_else(
    world: Callable[..., World],
) -> None:
    several = world(Listed(listed([A, B])))
    operation = infer_operation("m", {"x": [[1.0]]}, "", None, 0, "")
    call: Attempts[InferResult] = checked_options(A, 60, 3).attempts(operation, None, 0.0)
    head = b'{"model_name":"m","model_version":"1","outputs":[]}'
    kept = HttpResponse(200, {"idempotency-replayed": "false"}, head)
    course = Course(several.balancer, call)
    first = attempts_of(call, course)
    call.read(kept, 0.0)  # as if another call had learnt that this server keeps answers

    def failed(failure: ClientFailure) -> float:
        return course.next_wait(call, failure, 0.0, 0.0)

    assert failed(AnswerLost("cut off")) == 0.1
    assert attempts_of(call, course) == first
    assert failed(NOBODY) == 0.2
    assert attempts_of(call, course) == first
    with pytest.raises(AnswerLost):
        failed(AnswerLost("again"))


def test_what_was_not_run_goes_to_each_other_server_at_once(world: Callable[..., World]) -> None:
    several = world(Listed(listed([A, B, C])))
    operation = infer_operation("m", {"x": [[1.0]]}, "", None, 0, "")
    call: Attempts[InferResult] = checked_options(A, 60, 3).attempts(operation, None, 0.0)
    course = Course(several.balancer, call)
    tried, waits = [], []
    for _ in range(3):
        tried.append(attempts_of(call, course))
        waits.append(course.next_wait(call, NOBODY, 0.0, 0.0))
    assert set(tried) == {A, B, C}
    assert waits == [0, 0, 0.4]
