"""Servers share answers through a Redis that is slow, stopped, killed, or holds what nobody wrote.

Debian: apt-get install redis-server. Without it the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.processes import Process, until
from tests.integration.balancers import free_port
from tests.integration.redis.counterparts import (
    DATABASE,
    GO_ON,
    PASSWORD,
    STOP,
    Asking,
    Redis,
    slow_proxy,
)
from tests.integration.servers import serving

CANCELLATIONS = 10_000
LOOKS = "batcher_cache_redis_looks_total"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    made = Redis(tmp_path)
    made.start()
    yield made
    made.kill()


def server(folder: Path, redis_port: int, *more: str) -> AbstractContextManager[Process]:
    """Run a server whose own memory has room for a dozen answers, so that Redis is asked."""
    cache = "defaults.cache"
    store = f"{cache}.store=redis://:{PASSWORD}@127.0.0.1:{redis_port}/{DATABASE}"
    return serving(folder, free_port(), store, f"{cache}.max_bytes=4096", *more)


def asking(process: Process, numbers: int, leave: float = 0.0) -> Asking:
    return Asking(process.host_and_port[1], numbers, leave)


def looks(process: Process, outcome: str) -> float:
    """Return how many looks into Redis have ended so."""
    lines = process.get("/metrics").splitlines()
    found = [line for line in lines if line.startswith(LOOKS) and f'outcome="{outcome}"' in line]
    return sum(float(line.split()[-1]) for line in found)


def until_shared(process: Process) -> None:
    """Ask until answers come from Redis."""

    def found() -> bool:
        before = looks(process, "hit")
        asking(process, 40).ask(100)
        return looks(process, "hit") > before

    until(found)


def test_servers_share_answers_and_nothing_shows_the_password(tmp_path: Path, redis: Redis) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(server(tmp_path, redis.port)) for _ in range(2))
        until_shared(one)
        asking(one, 40).ask(1500, clients=4)  # all 40 numbers are there
        before = redis.keys()
        assert len(before) == 40
        until_shared(other)
        clients = asking(other, 40)
        clients.ask(400, clients=4)
        assert clients.wrong == []
        assert clients.counts["hit"] > 100
        assert sorted(redis.keys()) == sorted(before)
        for process in (one, other):
            pages = [process.get(page) for page in ("/metrics", "/", "/models/doubles", "/v2")]
            shown = "".join([*pages, *process.lines, process.errors])
            assert "sesame" not in shown


def test_values_that_nobody_has_sealed_are_no_answers(tmp_path: Path, redis: Redis) -> None:
    secret = "defaults.cache.secret=what only servers know"
    with server(tmp_path, redis.port, secret) as process:
        until_shared(process)
        keys = redis.keys()
        for number, key in enumerate(keys):
            value = redis.command("GET", keys[number - 1]).partition(b"\r\n")[2][:-2]
            redis.command("SET", key, [value, value[:-1], b"", b"x" * 300][number % 4])
        clients = asking(process, 40)
        clients.ask(400)
        assert clients.wrong == []
        assert looks(process, "wrong") > 0


def test_a_redis_that_is_killed_and_started_again_fails_no_request(
    tmp_path: Path, redis: Redis
) -> None:
    with server(tmp_path, redis.port) as process:
        clients = asking(process, 400)
        for _ in range(2):
            until_shared(process)
            clients.ask(500)
            redis.kill()
            clients.ask(1000)
            redis.start()
        until_shared(process)
        assert clients.wrong == []
        assert looks(process, "away") > 0


def test_a_redis_that_hangs_is_asked_no_more_and_found_again(tmp_path: Path, redis: Redis) -> None:
    with server(tmp_path, redis.port) as process:
        until_shared(process)
        redis.signal(STOP)
        before, clients = looks(process, "late"), asking(process, 10_000)
        clients.ask(5_000)
        assert clients.wrong == []
        assert 0 < looks(process, "late") - before + looks(process, "failed") < 500
        redis.signal(GO_ON)
        until_shared(process)


def test_ten_thousand_clients_leave_and_no_answer_reaches_another(
    tmp_path: Path, redis: Redis
) -> None:
    with slow_proxy(redis.port, 0.002) as port, server(tmp_path, port) as process:
        until_shared(process)
        clients = asking(process, 400, leave=0.7)
        for _ in range(40):
            clients.ask(1_000, clients=8)
            if clients.counts["left"] >= CANCELLATIONS and looks(process, "hit") > 100:
                break
        assert clients.wrong == []
        assert clients.counts["left"] >= CANCELLATIONS
        assert looks(process, "hit") > 100
        assert looks(process, "wrong") == 0
