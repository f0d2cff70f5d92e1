"""Workers in processes of their own that are killed, crash, end or hang, or lose their parent, under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.clients import under_load
from tests.chaos.ledger import Load, Sent
from tests.chaos.servers import SECONDS, children, is_quiet, is_running, serving, shared_memory
from tests.end_to_end.processes import Process, one_answer, until

pytestmark = pytest.mark.usefixtures("process_workers")

EVERY = 2.0
"""Seconds between two kills."""

CHILDREN = 2
"""Most processes of one worker: that which runs the model, and a spare that will."""

FATAL = ("crashing", "exiting", "hanging")
IN_PROCESSES = tuple(f"models.{model}.worker=process" for model in FATAL)


def kill(processes: Iterable[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(process, signal.SIGKILL)


def test_a_killed_worker_costs_what_it_ran_and_comes_back(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with serving(tmp_path, "ok", "slow", settings=("models.slow.worker=process",)) as server:
        held = shared_memory(server.pid)
        loads = (Load("slow", 24, identified=True), Load("slow", 4), Load("ok", 8, identified=True))
        with under_load(server, *loads) as ledger:
            for _ in range(max(1, int(SECONDS / EVERY))):
                served = ledger.outcomes("slow")["200"]
                until(lambda served=served: ledger.outcomes("slow")["200"] > served, seconds=60)
                time.sleep(EVERY)
                kill(children(server.pid))
            served = ledger.outcomes("slow")["200"]
            until(lambda: ledger.outcomes("slow")["200"] > served, seconds=60)
        assert set(ledger.outcomes("slow")) == {"200", "503 worker_lost"}
        assert set(ledger.outcomes("ok")) == {"200"}
        until(lambda: is_quiet(server))
        left = children(server.pid)
        assert 1 <= len(left) <= CHILDREN
        assert len(shared_memory(server.pid)) == len(held), (held, shared_memory(server.pid))
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        until(lambda: not any(map(is_running, left)))
    assert set(os.listdir("/dev/shm")) <= before


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    settings = (*IN_PROCESSES, "defaults.watchdog_s=1")
    with serving(tmp_path_factory.mktemp("fatal"), "ok", *FATAL, settings=settings) as process:
        yield process


@pytest.mark.parametrize("model", FATAL)
def test_a_model_that_ends_its_process_or_hangs_fails_one_batch_and_serves_again(server: Process, model: str) -> None:
    with under_load(server, Load(model, 4, identified=True), Load("ok", 8)) as ledger:
        until(lambda: ledger.outcomes(model)["200"] > 20)
        with server.connect() as connection:
            connection.sendall(Sent(Load(model, marked=True)).data)
            answer = one_answer(connection)
        assert (answer.status, answer.decoded()["code"]) == (503, "worker_lost")
        served = ledger.outcomes(model)["200"]
        until(lambda: ledger.outcomes(model)["200"] > served + 20, seconds=60)
    assert set(ledger.outcomes(model)) <= {"200", "503 worker_lost"}
    assert set(ledger.outcomes("ok")) == {"200"}
    until(lambda: is_quiet(server) and len(children(server.pid)) <= len(FATAL) * CHILDREN)
    assert '"ready":true' in server.get("/readyz")


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "ok", settings=("models.ok.worker=process",)) as server:
        until(lambda: len(children(server.pid)) >= 1)
        left = children(server.pid)
        server.signal(signal.SIGKILL)
        server.wait(10)
        until(lambda: not any(map(is_running, left)))
