"""Workers in processes are killed, crash, end, hang or lose their parent, under load."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from urllib.error import HTTPError

import pytest

from tests.chaos.clients import under_load
from tests.chaos.kills import CHILDREN, RESTART_LIMIT_S, kill, load_seconds, seconds_without
from tests.chaos.ledger import Load, Sent
from tests.chaos.servers import SECONDS, children, is_quiet, is_running, serving, shared_memory
from tests.end_to_end.processes import Process, one_answer, until

KILL_INTERVAL_S = 2.0
"""Seconds from one kill to the next, if the model is back by then."""

FATAL = ("crashing", "exiting", "hanging")
IN_PROCESSES = (*FATAL, "nan", "unloadable")
SETTINGS = (
    *(f"models.{model}.worker=process" for model in IN_PROCESSES),
    "models.nan.finite_outputs=true",
    "defaults.watchdog_s=1",
    "strict_start=false",
)


@pytest.mark.long
def test_a_killed_worker_costs_what_it_ran_and_comes_back(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with serving(tmp_path, "ok", "slow", settings=("models.slow.worker=process",)) as server:
        until(lambda: len(children(server.pid)) == CHILDREN)  # the spare has its memory then too
        held = shared_memory(server.pid)
        busy = Load("slow", 4, rate=100)  # so that there is always something to lose
        without = []
        with under_load(
            server,
            Load("slow", 24, identified=True),
            busy,
            Load("ok", 8, rate=400, identified=True),
        ) as ledger:
            until(lambda: ledger.outcomes("slow")["200"] > 100)
            for number in range(max(2, int(SECONDS / KILL_INTERVAL_S))):
                # in turns with and without its spare
                victims = children(server.pid)[: CHILDREN if number % 2 else 1]
                without.append(seconds_without(ledger, "slow", victims))
                time.sleep(max(KILL_INTERVAL_S - without[-1], 0.0))
        loading = load_seconds(server, "slow")
        times = ", ".join(f"{seconds:.1f}" for seconds in without)
        sys.stdout.write(
            f"loaded in {loading:.1f} s; seconds from each kill to an answer: {times}\n"
        )
        if len(without) > 2:  # of two, either may have met what else the machine does
            assert median(without) < 3 * (loading + 1.0), (
                f"loading and a second, on a machine that does other things too: {times}"
            )
        assert set(ledger.outcomes("slow")) == {"200", "503 worker_lost"}
        assert set(ledger.outcomes("ok")) == {"200"}
        until(lambda: is_quiet(server) and len(children(server.pid)) == CHILDREN)
        left = children(server.pid)
        assert len(shared_memory(server.pid)) == len(held), (held, shared_memory(server.pid))
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        until(lambda: not any(map(is_running, left)))
    assert set(os.listdir("/dev/shm")) <= before


@pytest.mark.long
def test_while_one_of_two_instances_is_killed_the_other_serves_and_what_was_lost_runs_there(
    tmp_path: Path,
) -> None:
    settings = (
        "models.slow.worker=process",
        "models.slow.instances=2",
        "models.slow.retry_on_crash=true",
    )
    with (
        serving(tmp_path, "slow", settings=settings) as server,
        under_load(server, Load("slow", 96)) as ledger,
    ):
        until(lambda: len(children(server.pid)) == 2 * CHILDREN)
        for _ in range(2):
            answered = ledger.outcomes("slow")["200"]
            kill(children(server.pid)[:1])  # the spares are younger, also those that serve by now
            until(lambda: len(children(server.pid)) < 2 * CHILDREN)
            until(
                lambda: (
                    '"ready":true' in server.get("/readyz")
                    and len(children(server.pid)) == 2 * CHILDREN
                ),
                RESTART_LIMIT_S,
            )
            until(lambda answered=answered: ledger.outcomes("slow")["200"] > answered)
    assert set(ledger.outcomes("slow")) == {"200"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(
        tmp_path_factory.mktemp("fatal"), "ok", *IN_PROCESSES, settings=SETTINGS
    ) as process:
        yield process


def waiting_for(server: Process) -> set[str]:
    """Return the models that `/readyz` names."""
    try:
        server.get("/readyz")
    except HTTPError as err:
        return set(json.load(err)["waiting_for"])
    return set()


@pytest.mark.parametrize("model", FATAL)
def test_a_model_that_ends_its_process_or_hangs_fails_one_batch_and_serves_again(
    server: Process, model: str
) -> None:
    with under_load(
        server, Load(model, 4, rate=400, identified=True), Load("ok", 8, rate=400)
    ) as ledger:
        until(lambda: ledger.outcomes(model)["200"] > 20)
        with server.connect() as connection:
            connection.sendall(Sent(Load(model, marked=True)).data)
            answer = one_answer(connection)
        assert (answer.status, answer.decoded()["code"]) == (503, "worker_lost")
        answered = ledger.outcomes(model)["200"]
        until(lambda: ledger.outcomes(model)["200"] > answered + 20, seconds=60)
    assert set(ledger.outcomes(model)) <= {"200", "503 worker_lost"}
    assert set(ledger.outcomes("ok")) == {"200"}
    until(lambda: is_quiet(server))
    assert waiting_for(server) == {"unloadable/1"}


def test_rows_that_fail_and_a_model_that_cannot_be_loaded_end_no_process(server: Process) -> None:
    before = set(children(server.pid))
    loads = (Load("nan", 8), Load("nan", 1, marked=True), Load("unloadable", 4), Load("ok", 8))
    with under_load(server, *loads) as ledger:
        until(lambda: all(ledger.outcomes(load.model, load.marked).total() > 20 for load in loads))
    assert set(ledger.outcomes("nan", marked=False)) == {"200"}
    assert set(ledger.outcomes("nan", marked=True)) == {"500 model_contract"}
    assert set(ledger.outcomes("unloadable")) == {"503 model_not_ready"}
    assert set(ledger.outcomes("ok")) == {"200"}
    assert before <= set(children(server.pid))
    assert waiting_for(server) == {"unloadable/1"}


# the last test, since it ends the server of the others
def test_workers_end_when_their_parent_is_killed(server: Process) -> None:
    until(lambda: len(children(server.pid)) == (len(IN_PROCESSES) - 1) * CHILDREN)
    left = children(server.pid)
    server.signal(signal.SIGKILL)
    server.wait(10)
    until(lambda: not any(map(is_running, left)))
