"""SIGHUP under load, again and again: models are replaced, and no client notices.

Meanwhile other models fail and workers are killed.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from tests.chaos.clients import under_load
from tests.chaos.kills import CHILDREN, RESTART_LIMIT_S, kill
from tests.chaos.ledger import Ledger, Load
from tests.chaos.servers import MODELS, SECONDS, children, is_quiet, serving, shared_memory
from tests.end_to_end.processes import Process, until

SIGNALS = 100
KILLS = 2


@contextmanager
def changing(
    folder: Path, *models: str, settings: tuple[str, ...]
) -> Iterator[tuple[Process, Path]]:
    """Run a server of copies of `models`; give the server and the folder of the copies."""
    repository = folder / "models"
    for model in models:
        shutil.copytree(MODELS / model, repository / model)
    with serving(folder, *models, settings=(f"model_repository={repository}", *settings)) as server:
        yield server, repository


def change(repository: Path, model: str) -> None:
    """Make `model` count as changed: one of its files gets a new time."""
    (repository / model / "1" / "model.yaml").touch()


def is_as_on_disk(server: Process) -> bool:
    """Send a SIGHUP; return whether the last reload in the log found nothing to change."""
    server.signal(signal.SIGHUP)
    reloads = [line for line in server.errors.splitlines() if "reloaded" in line]
    return bool(reloads) and reloads[-1].endswith("reloaded: nothing has changed")


@pytest.mark.long
def test_no_request_is_lost_in_a_hundred_hangups_while_models_fail_and_workers_are_killed(
    tmp_path: Path,
) -> None:
    loads = (
        Load("ok", 8, rate=400, identified=True),
        Load("ok", 2, rate=100),
        Load("slow", 16, identified=True),
        Load("poisoned", 15, rate=200, identified=True),
        # one at a time, so that the budget of runs suffices to find it
        Load("poisoned", 1, marked=True),
        Load("crashing", 4, rate=200, identified=True),
    )
    models = {load.model for load in loads}
    with changing(tmp_path, *models, settings=("models.crashing.worker=process",)) as (
        server,
        repository,
    ):
        with under_load(server, *loads) as ledger:
            trouble(server, repository, ledger)
        assert set(
            ledger.outcomes("ok")
            + ledger.outcomes("slow")
            + ledger.outcomes("poisoned", marked=False)
        ) == {"200"}
        assert set(ledger.outcomes("poisoned", marked=True)) == {"500 model_error"}
        assert set(ledger.outcomes("crashing")) <= {"200", "503 worker_lost"}
        until(lambda: is_as_on_disk(server), RESTART_LIMIT_S)
        until(lambda: is_quiet(server) and len(children(server.pid)) == CHILDREN)
        assert server.metric("batcher_reloads_total") > KILLS
        assert '"ready":true' in server.get("/readyz")


@pytest.mark.long
def test_a_worker_in_a_process_is_replaced_under_load_and_no_request_notices(
    tmp_path: Path,
) -> None:
    loads = (
        Load("slow", 24, identified=True),
        Load("slow", 4, pipelined=8),
        Load("ok", 8, rate=400, identified=True),
    )
    with changing(tmp_path, "ok", "slow", settings=("models.slow.worker=process",)) as (
        server,
        repository,
    ):
        until(lambda: len(children(server.pid)) == CHILDREN)  # the spare has its memory then too
        held = shared_memory(server.pid)
        with under_load(server, *loads) as ledger:
            for _ in range(max(1, int(SECONDS / 5))):
                replaced, answered = set(children(server.pid)), ledger.outcomes("slow")["200"]
                change(repository, "slow")
                server.signal(signal.SIGHUP)
                until(
                    lambda replaced=replaced: not replaced & set(children(server.pid)),
                    RESTART_LIMIT_S,
                )
                until(
                    lambda answered=answered: (
                        ledger.outcomes("slow")["200"] > answered + ledger.pending
                    )
                )
        assert set(ledger.outcomes("slow") + ledger.outcomes("ok")) == {"200"}
        until(lambda: is_quiet(server) and len(children(server.pid)) == CHILDREN)
        assert len(shared_memory(server.pid)) == len(held), (held, shared_memory(server.pid))
        assert "Traceback" not in server.errors


def trouble(server: Process, repository: Path, ledger: Ledger) -> None:
    """Change a model and send a SIGHUP, again and again.

    Kill a worker now and then, once the worker killed before has been replaced.
    """
    answered, in_threads = 0, cycle(("ok", "slow", "poisoned"))
    for number in range(1, SIGNALS + 1):
        change(repository, "crashing" if number == SIGNALS // 2 else next(in_threads))
        server.signal(signal.SIGHUP)
        if number % (SIGNALS // KILLS) == 0:
            until(
                lambda answered=answered: ledger.outcomes("crashing")["200"] > answered,
                RESTART_LIMIT_S,
            )
            kill(children(server.pid)[:1])
            answered = ledger.outcomes("crashing")["200"] + ledger.pending
        time.sleep(SECONDS / SIGNALS)
