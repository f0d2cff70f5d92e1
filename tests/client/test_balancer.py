"""The list that a client follows, and what it does when nobody lists anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from twisted.internet.task import Clock

from batcher.client import AnswerLost, ClientClosed, ClientFailure, NotConnected, balancer
from batcher.client.attempts import Attempts, ClientOptions, ServerHabits, checked_options
from batcher.client.balancer import MAX_REASON_CHARS, RETRY_S, Balancer, Course, Listed
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
        cannot: addresses to which no connections can be made.
    """

    def __init__(self, source: Any, is_inline: bool = True) -> None:
        self.clock = Clock()
        self.jobs: list[Callable[[], object]] = []
        self.is_inline = is_inline
        self.ready: set[str] = set()
        self.probed: list[str] = []
        self.ended: list[str] = []
        self.cannot: set[str] = set()
        self.balancer = Balancer(source, self._made, self._probe, seconds=self.clock.seconds)

    def start(self, job: Callable[[], object]) -> None:
        job() if self.is_inline else self.jobs.append(job)

    def _made(self, address: str) -> Calls:
        if address in self.cannot:
            raise ValueError("this name has no TLS")
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


@pytest.mark.parametrize(
    "reason", [OSError("x" * 10_000), ["ftp://me:w0rd/@x"]], ids=["long", "odd"]
)
def test_the_reason_of_a_registry_is_short_and_has_no_secrets(
    world: Callable[..., World], reason: Any
) -> None:
    several = world(Registry(reason))
    several.known()
    with pytest.raises(NotConnected) as failed:
        several.balancer.take("m", ())
    assert len(str(failed.value)) < MAX_REASON_CHARS + 80
    assert "w0rd" not in str(failed.value)


def test_a_registry_that_was_filled_up_fills_no_client(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancer, "MAX_SERVERS", 2)
    several = world(Registry(["ftp://x", A, B, C]))
    several.known()
    assert several.asked() == {A, B}


def test_a_server_to_which_no_connection_can_be_made_is_ejected(
    world: Callable[..., World],
) -> None:
    several = world(Registry([A], [A, B]))
    several.cannot.add(A)
    several.known()
    for _ in range(2):
        with pytest.raises(NotConnected, match="this name has no TLS"):
            several.balancer.take("m", ())
    several.clock.advance(5)
    with pytest.raises(NotConnected):
        several.balancer.take("m", ())
    assert several.asked() == {B}


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


def test_a_closed_client_takes_no_server_and_needs_a_thread_only_for_a_registry(
    world: Callable[..., World],
) -> None:
    several = world(Listed(listed([A, B])), False)
    upstream = several.balancer.take("m", ())
    several.balancer.close()
    for call in (several.balancer.take, lambda *_: several.balancer.again(upstream)):
        with pytest.raises(ClientClosed):
            call("m", ())
    assert several.jobs == []


def test_a_program_that_ends_and_has_no_more_threads_closes_its_client(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry([A])
    several = world(registry)

    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(balancer, "start_daemon", refuse)
    several.balancer.close()
    assert registry.is_closed


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


def lost_call() -> Attempts[InferResult]:
    operation = infer_operation("m", {"x": [[1.0]]}, "", None, 0, "")
    return checked_options(A, 60, 3).attempts(operation, None, 0.0)


def test_a_request_without_a_key_is_not_repeated_for_the_key_of_an_earlier_one() -> None:
    call, other = lost_call(), ServerHabits()
    assert "idempotency-key" in call.next_request(0.0)[0].headers
    assert call.next_wait(NOBODY, 0.0, 0.0, has_other=True) == 0
    other.keeps_answers = False
    call.go_to(other)
    assert "idempotency-key" not in call.next_request(0.0)[0].headers
    other.keeps_answers = True  # which another call has learnt meanwhile
    with pytest.raises(AnswerLost):
        call.next_wait(AnswerLost("cut off"), 0.0, 0.0, has_other=True)


def test_a_call_that_may_have_run_never_ends_as_one_that_did_not() -> None:
    call, server = lost_call(), ServerHabits()
    server.keeps_answers = True
    call.go_to(server)
    call.next_request(0.0)
    call.next_wait(AnswerLost("cut off"), 0.0, 0.0)
    for _ in range(2):
        call.next_wait(NOBODY, 0.0, 0.0)
    with pytest.raises(AnswerLost, match="cut off; asked again: refused"):
        call.next_wait(NOBODY, 0.0, 0.0)


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
    assert waits == [0, 0, 0.1]
