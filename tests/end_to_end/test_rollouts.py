"""New versions under load on a real server: no request is lost, none is answered by a wrong one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.serving import server_process
from benchmarks.trials.changes import Changes
from benchmarks.trials.clients import Load, under_load
from tests.end_to_end.processes import Process, started, until, write_model

CANARY = "{version: latest, steps: [20], every: 1d, min_requests: 1000000}"

GATED = """
import time
from pathlib import Path

class Model:
    def __init__(self):
        while (gate := Path({gate!r})).exists():
            gate.with_suffix(".reached").touch()
            time.sleep(0.01)

    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""


def _load(address: str, model: str) -> int:
    """Have the server load `model`; return the status of the answer, when it has come."""
    url = f"{address}/v2/repository/models/{model}/load"
    with urlopen(Request(url, b"{}", {"Content-Type": "application/json"}), timeout=60) as answer:
        status: int = answer.status
        return status


def _is_waiting(server: Process) -> bool:
    """Send a SIGHUP; return whether a reload waits for another one, which has not ended."""
    server.signal(signal.SIGHUP)
    return "a reload was asked for: it waits" in server.errors


def test_no_request_is_lost_or_wrong_over_reloads_promotes_and_aborts(tmp_path: Path) -> None:
    repository, log = tmp_path / "models", tmp_path / "log"
    Changes.write(repository)
    settings = (
        f"state_folder={tmp_path}",
        "model_control=explicit",
        f"models.tried.canary={CANARY}",
    )
    with server_process(repository, *settings, log=log) as server:
        made = Changes(server, repository, log)
        replaced, tried = (Load(server.http, name, 4, 0.01) for name in ("replaced", "tried"))
        with under_load(replaced, tried):
            changes: list[Callable[[], None]] = [made.reload, made.promote, made.abort]
            for _ in range(3):
                for change in changes:
                    change()
    for load, meant in ((replaced, made.replaced), (tried, made.tried)):
        assert {(one.status, one.number < 0) for one in load.answered} == {(200, False)}
        assert not [one for one in load.answered if not meant.is_right(one)]
        assert len({one.number for one in load.answered}) > 1
    assert {one.told for one in replaced.answered} == {""}
    assert all(one.told == str(one.number) for one in tried.answered)
    assert "Traceback" not in log.read_text()


def test_a_hangup_while_loads_of_clients_wait_loses_none_and_hangs_nothing(tmp_path: Path) -> None:
    gate, repository = tmp_path / "gate", tmp_path / "models"
    for name in ("slow", "other"):
        write_model(repository, name, GATED.format(gate=str(gate) if name == "slow" else "none"))
    settings = (
        f"model_repository={repository}",
        f"state_folder={tmp_path}",
        "model_control=explicit",
        "load_at_start=[]",
    )
    arguments = (part for pair in settings for part in ("--set", pair))
    with started(tmp_path, *arguments) as server, ThreadPoolExecutor(8) as pool:
        gate.touch()
        ask = partial(_load, server.address)
        loads = [pool.submit(ask, name) for name in ("slow", "slow", "other", "slow")]
        until((tmp_path / "gate.reached").exists)
        # Loads that are asked for behind the reload wait for it, and it waits for the slow one.
        until(lambda: _is_waiting(server))
        loads += [pool.submit(ask, name) for name in ("other", "slow")]
        gate.unlink()
        assert [load.result(60) for load in loads] == [200] * 6
        until(lambda: server.errors.count(" reloaded: ") >= 2)
        assert server.get("/v2/models/slow")
        assert server.get("/v2/models/other")
        assert "Traceback" not in server.errors
