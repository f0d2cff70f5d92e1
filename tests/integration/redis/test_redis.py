"""Servers share answers through a Redis that is slow, stopped, killed, or holds what nobody wrote.

Its certificate may be that of somebody else, and the servers may load their models anew meanwhile.

Debian: apt-get install redis-server. Without it the tests are skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.processes import Process, started, until, write_model
from tests.integration.balancers import free_port
from tests.integration.certificates import make_certificates
from tests.integration.redis.counterparts import (
    DATABASE,
    GO_ON,
    PASSWORD,
    STOP,
    Asking,
    Redis,
    Watching,
    slow_proxy,
)
from tests.integration.servers import DOUBLES, serving

CANCELLATIONS = 10_000
RELOADED_REQUESTS, RELOADS = 100_000, 30
GENERATION = """
class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"] * 1000 + {number}}}
"""
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


def trusting_server(
    folder: Path, environment: dict[str, str], store: str
) -> AbstractContextManager[Process]:
    """Run such a server, whose store and whose `environment` are these."""
    if not (folder / "models").exists():
        write_model(folder / "models", "doubles", DOUBLES)
    pairs = (f"model_repository={folder / 'models'}", "defaults.cache.max_bytes=4096", store)
    arguments = [part for pair in pairs for part in ("--set", pair)]
    return started(folder, *arguments, environment=environment)


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


@pytest.mark.long
def test_servers_that_load_other_files_answer_by_these_alone(tmp_path: Path, redis: Redis) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    requests = iter(range(RELOADED_REQUESTS))
    for folder in folders:
        folder.mkdir()
        write_model(folder / "models", "doubles", GENERATION.format(number=0))

    async def replace(both: list[tuple[Watching, Path]]) -> None:
        """Give the servers, one after the other, each generation: they differ for a while."""
        for number in range(1, RELOADS + 1):
            while sum(sum(each.counts.values()) for each, _ in both) < (
                number * RELOADED_REQUESTS // (RELOADS + 1)
            ):
                await asyncio.sleep(0.01)
            for watching, folder in both:
                new = folder / "models/doubles/1/new"
                new.write_text(GENERATION.format(number=number))
                new.replace(new.with_name("code.py"))
                watching.loading = number
                await watching.load()
                watching.serving = number

    async def run(both: list[tuple[Watching, Path]]) -> None:
        await asyncio.gather(replace(both), *(each.ask(requests, 8) for each, _ in both))

    with ExitStack() as stack:
        servers = [
            stack.enter_context(server(folder, redis.port, "model_control=explicit"))
            for folder in folders
        ]
        both = [Watching(process.host_and_port[1], 200) for process in servers]
        asyncio.run(run(list(zip(both, folders, strict=True))))
        assert [each.wrong for each in both] == [[], []]
        assert [each.serving for each in both] == [RELOADS, RELOADS]
        for each, process in zip(both, servers, strict=True):
            assert each.counts[b"hit"] > RELOADED_REQUESTS // 10
            assert looks(process, "hit") > 100


def test_with_tls_a_redis_is_asked_whose_certificate_is_valid_and_no_other(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    redis = Redis(tmp_path, tls=True)
    redis.start()
    store = f"defaults.cache.store=rediss://:{PASSWORD}@{{}}:{redis.port}/{DATABASE}"
    trusting = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    try:
        with trusting_server(tmp_path, trusting, store.format("localhost")) as process:
            until_shared(process)
            assert redis.keys()
        for host, environment, why in (
            ("localhost", {}, "certificate verify failed"),
            ("127.0.0.2", trusting, "expected a certificate for 127.0.0.2; got one for another"),
        ):
            with trusting_server(tmp_path, environment, store.format(host)) as process:
                until(lambda process=process, why=why: _answers(process) and why in process.errors)
                assert looks(process, "hit") + looks(process, "late") == 0
                assert process.errors.count("is not asked") == 1
                assert PASSWORD not in process.errors
    finally:
        redis.kill()


def _answers(process: Process) -> bool:
    """Return whether clients get the right answers."""
    clients = asking(process, 10_000)
    clients.ask(100, clients=4)
    return clients.wrong == []
