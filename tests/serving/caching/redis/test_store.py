"""Values in a Redis that is slow, away, or wrong. Time is a Clock, the Redis is in memory."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from batcher.config.redis_address import redis_address
from batcher.serving.cache_metrics import RedisCounts
from batcher.serving.caching.redis.breaker import MOST_FAILURES, REST_S
from batcher.serving.caching.redis.link import MAX_UNANSWERED_BYTES, RETRY_S, RedisLink
from batcher.serving.caching.redis.protocol import MAX_REPLY_BYTES
from batcher.serving.caching.redis.store import MAX_VALUE_BYTES, WAIT_S, RedisStore
from tests.support.redis import MemoryRedis


class Stored:
    """A store, and the Redis that it asks.

    Attributes:
        lines: what was logged.
    """

    def __init__(
        self, address: str = "redis://redis.example", clock: Callable[[], Clock] = Clock
    ) -> None:
        self.clock, self.redis, self.counts = clock(), MemoryRedis(), RedisCounts()
        self.clock.advance(1000)
        parsed = redis_address(address)
        self.link = RedisLink(parsed, self.clock, self.redis.at(self.clock))
        self.store = RedisStore(self.link, self.clock, self.counts, "m/1", parsed.place)
        self.lines: list[str] = []

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        for _ in range(20):
            self.clock.advance(0)

    def connect(self) -> None:
        """Connect, and forget what that took."""
        self.look(b"none")
        self.turn()
        assert self.redis.open_wires
        self.counts.looks.clear()
        self.redis.commands.clear()

    def look(self, key: bytes) -> Deferred[bytes | None] | None:
        return self.store.look(key, self._check)

    def ask(self, key: bytes) -> list[Any]:
        """Return a list that will hold what the look brings."""
        found: list[Any] = []
        looked = self.look(key)
        assert looked is not None
        looked.addBoth(found.append)
        return found

    def open_breaker(self) -> None:
        """Have so many looks come late that the breaker opens."""
        self.redis.delay = None
        for _ in range(MOST_FAILURES):
            self.ask(b"a")
        self.turn(WAIT_S)

    @staticmethod
    def _check(value: bytes) -> None:
        if value != b"A":
            raise ValueError("wrong")


@pytest.fixture
def stored() -> Any:
    made = Stored()

    def write(event: LogEvent) -> None:
        made.lines.append(str(event["log_format"]).format(**event) if "text" in event else "")

    globalLogPublisher.addObserver(write)
    made.connect()
    made.redis.values = {b"a": b"A", b"b": b"B"}
    yield made
    globalLogPublisher.removeObserver(write)
    made.store.close()
    made.turn(1.0)
    assert not made.redis.open_wires
    assert not made.clock.getDelayedCalls()


def test_a_value_is_found_in_time(stored: Stored) -> None:
    found = [stored.ask(key) for key in (b"a", b"c", b"b")]
    stored.turn()
    assert found == [[b"A"], [b""], [b"B"]]


def test_nobody_waits_for_a_connection(stored: Stored) -> None:
    stored.redis.close()
    stored.turn()
    assert stored.look(b"a") is None
    for _ in range(100):  # one attempt in RETRY_S, however many requests there are
        assert stored.look(b"a") is None
    stored.redis.is_down = False
    stored.turn(RETRY_S)
    stored.look(b"a")
    stored.turn()
    found = stored.ask(b"a")
    stored.turn()
    assert found == [b"A"]
    assert stored.counts.looks == {"away": 102 - (stored.counts.looks["away"] == 101)}


def test_a_late_reply_costs_five_milliseconds_and_reaches_nobody_else(stored: Stored) -> None:
    stored.redis.delay = 2 * WAIT_S
    late = stored.ask(b"a")
    stored.turn(WAIT_S - 0.001)
    assert late == []
    stored.turn(0.001)
    assert late == [None]
    stored.redis.delay = WAIT_S  # comes after the late one, which was sent first
    found = stored.ask(b"b")
    stored.turn(WAIT_S - 1e-6)
    assert found == []
    assert stored.counts.looks == {"late": 1}


def test_replies_that_lie_in_the_socket_are_not_late_because_the_loop_was(stored: Stored) -> None:
    found = stored.ask(b"a")
    stored.clock.advance(1.0)  # timers ring first, then sockets are read
    stored.turn()
    assert found == [b"A"]


class Loop(Clock):
    """Runs calls as uvloop does: what a call has called comes one turn later, behind sockets."""

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in due:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


@pytest.fixture
def held() -> Any:
    """Return a store on a loop of turns, whose Redis is connected and replies when told."""
    held = Stored(clock=Loop)
    held.connect()
    held.redis.delay = None
    yield held
    held.store.close()
    held.turn(1.0)


def reply(stored: Stored, times: int) -> None:
    """Have the loop read so many replies."""
    stored.redis.wires[-1].send(b"$1\r\nA\r\n" * times)


def test_a_look_has_failed_only_after_the_sockets_were_read(held: Stored) -> None:
    found = held.ask(b"a")
    held.clock.advance(WAIT_S)  # the timer rings
    held.clock.advance(0)  # what is due at once runs before sockets are read
    reply(held, 1)
    held.turn()
    assert found == [b"A"]
    assert held.counts.looks == {}


def test_where_the_loop_was_held_up_looks_have_their_time_anew_once(held: Stored) -> None:
    looks = [held.ask(b"a") for _ in range(MOST_FAILURES)]
    held.clock.advance(0.020)  # the timer rings late
    held.clock.advance(0.020)  # and the commands leave at the end of this turn
    held.turn(WAIT_S / 2)
    assert looks == [[]] * MOST_FAILURES
    reply(held, MOST_FAILURES)
    assert looks == [[b"A"]] * MOST_FAILURES
    hangs = held.ask(b"a")  # the breaker is closed
    held.turn(0.020)
    held.turn(WAIT_S)
    assert hangs == [None]
    assert held.counts.looks == {"late": 1}


def test_a_look_that_is_cancelled_moves_no_other_reply(stored: Stored) -> None:
    looked = [stored.look(b"a" if number % 2 else b"b") for number in range(8)]
    found: list[Any] = []
    for number, each in enumerate(looked):
        assert each is not None
        each.addBoth(found.append)
        if number < 6:
            each.cancel()
    stored.turn()
    assert [each for each in found if not isinstance(each, Failure)] == [b"B", b"A"]
    assert all(each.check(CancelledError) for each in found[:6])


def test_of_ten_thousand_looks_that_are_cancelled_none_moves_a_reply(stored: Stored) -> None:
    chance = Random(3)
    stored.redis.values = {b"%d" % number: b"value %d" % number for number in range(50)}
    stored.redis.delay = WAIT_S / 2
    cancelled, found = 0, []
    while cancelled < 10_000:
        number = chance.randrange(50)
        looked = stored.look(b"%d" % number)
        assert looked is not None
        looked.addCallback(lambda value, number=number: found.append((value, number)))
        looked.addErrback(lambda failure: failure.trap(CancelledError))
        stored.clock.pump([chance.random() * WAIT_S / 4])
        if chance.random() < 0.8:
            cancelled += not looked.called
            looked.cancel()
    stored.turn(WAIT_S)
    assert len(found) > 1000
    assert {value for value, _ in found} <= set(stored.redis.values.values())
    assert all(value == b"value %d" % number for value, number in found)


def test_a_redis_that_hangs_is_asked_no_more_until_a_probe_finds_it_back(stored: Stored) -> None:
    stored.open_breaker()
    assert not stored.redis.open_wires  # nothing waits in the socket of a Redis that hangs
    assert stored.look(b"a") is None
    stored.turn(REST_S)
    stored.redis.delay = 0.0
    assert stored.look(b"a") is None  # the probe, which nobody waits for
    stored.turn()
    found = stored.ask(b"a")
    stored.turn()
    assert found == [b"A"]
    assert "no reply within 5 ms" in stored.lines[0]
    assert "answers again" in stored.lines[1]
    assert len(stored.lines) == 2


@pytest.mark.parametrize("key", [b"a", b"b"])
def test_a_probe_that_is_slow_or_finds_a_forged_value_changes_nothing(
    stored: Stored, key: bytes
) -> None:
    stored.open_breaker()
    stored.redis.delay = 2 * WAIT_S if key == b"a" else 0.0
    for _ in range(4):
        stored.turn(REST_S)
        assert stored.look(key) is None
        stored.turn(WAIT_S)
    assert len(stored.redis.commands) == MOST_FAILURES + 4


FORGED = {
    "a reply too many": lambda reply: reply + b"$1\r\nX\r\n",
    "a length that is none": lambda reply: b"$x\r\n",
    "a negative length": lambda reply: b"$-7\r\n" + b"x" * 100,
    "a value without an end": lambda reply: b"$%d\r\n" % (MAX_REPLY_BYTES + 1),
    "a list": lambda reply: b"*2\r\n",
    "no text": lambda reply: b"\xff\xfe\r\n",
    "a line without an end": lambda reply: b"+" * (1 << 16),
    "an error": lambda reply: b"-WRONGTYPE\r\n",
    "a number": lambda reply: b":5\r\n",
    "a word": lambda reply: b"+OK\r\n",
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_reply_that_is_none_is_no_value_for_anybody(stored: Stored, kind: str) -> None:
    stored.redis.forge = FORGED[kind]
    first, second = stored.ask(b"a"), stored.ask(b"b")
    stored.turn()
    stored.turn(WAIT_S)
    # A reply too many is taken for the next one: its digest will not be that of the key.
    assert [first, second] in ([[None], [None]], [[b"A"], [b"X"]])
    stored.redis.forge = lambda reply: reply
    stored.turn(RETRY_S)
    stored.look(b"a")
    stored.turn(REST_S)
    stored.look(b"a")
    stored.turn()
    found = stored.ask(b"b")
    stored.turn()
    assert found == [b"B"]


def test_a_value_of_somebody_else_is_read_up_to_the_bound(stored: Stored) -> None:
    stored.redis.values[b"a"] = bytes(4 * MAX_VALUE_BYTES)
    found = stored.ask(b"a")
    stored.turn()
    assert [len(each) for each in found] == [MAX_VALUE_BYTES + 1]


def test_values_that_are_not_confirmed_are_bounded(stored: Stored) -> None:
    stored.redis.delay = None
    for number in range(20):
        stored.store.put(b"%d" % number, bytes(MAX_VALUE_BYTES), 1.5)
    sent = [command for command in stored.redis.commands if command[0] == b"SET"]
    assert len(sent) == MAX_UNANSWERED_BYTES // MAX_VALUE_BYTES
    assert sent[0][3:] == [b"PX", b"1500"]
    assert stored.counts.writes == {"dropped": 12}
    stored.redis.wires[-1].abortConnection()
    stored.turn()
    assert stored.counts.writes == {"dropped": 12, "failed": 8}


def test_who_waits_when_the_version_goes_gets_no_value(stored: Stored) -> None:
    stored.redis.delay = None
    found = stored.ask(b"a")
    stored.store.close()
    assert found == [None]
    assert stored.look(b"a") is None


def test_a_login_is_made_and_no_password_is_shown() -> None:
    lines: list[str] = []

    def write(event: LogEvent) -> None:
        lines.append(repr(event))

    stored = Stored("redis://reader:p%40ss-word@redis.example/3")
    stored.redis.password = b"other"
    globalLogPublisher.addObserver(write)
    for _ in range(3):
        assert stored.look(b"a") is None
        stored.turn(RETRY_S)
    assert "could not auth: WRONGPASS for …" in stored.link.why
    assert len(lines) == 1
    assert "p@ss-word" not in "".join(lines)
    stored.redis.password = b"p@ss-word"
    stored.look(b"a")
    stored.turn()
    found = stored.ask(b"a")
    stored.turn()
    globalLogPublisher.removeObserver(write)
    assert found == [b""]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (TlsError([("SSL routines", "", "certificate verify failed")]), "certificate verify fail"),
        (TlsError(), "an unknown fault"),
        (VerificationError([]), "a certificate for redis.example; got one for another name"),
        (None, "expected a login in time"),
    ],
)
def test_a_redis_whose_certificate_is_not_valid_is_asked_nothing_and_named_once(
    fault: Exception | None, said: str
) -> None:
    lines: list[str] = []

    def write(event: LogEvent) -> None:
        lines.append(str(event["log_format"]).format(**event))

    stored = Stored("rediss://:sesame@redis.example")
    stored.redis.password = b"sesame"
    if fault is not None:
        stored.redis.shake_hands = lambda wire: wire.end(fault)
    globalLogPublisher.addObserver(write)
    for _ in range(4):
        assert stored.look(b"a") is None
        stored.turn(RETRY_S)
    assert len(lines) == 1
    assert "rediss://redis.example:6379/0 is not asked: " in lines[0]
    assert said in lines[0]
    assert stored.redis.logins == 0  # no password went to whoever that was
    stored.redis.shake_hands = lambda wire: wire.protocol.handshakeCompleted()
    stored.look(b"a")
    stored.turn()
    found = stored.ask(b"a")
    stored.turn()
    globalLogPublisher.removeObserver(write)
    assert found == [b""]
    assert stored.redis.logins == 1
