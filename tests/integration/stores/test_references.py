"""Inputs that lie in each kind of store, named by clients."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.codecs.formats.test_references import ROWS, npy
from tests.end_to_end.processes import Process, started, write_model
from tests.integration.stores.conftest import Remote
from tests.integration.stores.counterparts import SECRET

SOURCE = "class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x'] * 2}\n"


def ask(server: Process, address: str, **headers: str) -> tuple[int, Any]:
    """Return status and body of the answer for one file."""
    body = {"inputs": {"x": {"ref": address}}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = httpx.post(f"{server.address}/predict", json=body, headers=names, timeout=60)
    return reply.status_code, reply.json()


def check_silence(remote: Remote, server: Process) -> None:
    """Check that the deadline of a request ends a fetch from a store that says nothing."""
    remote.counterpart.process.send_signal(signal.SIGSTOP)
    try:
        address = f"{remote.counterpart.address}/rows.npy"
        status, answer = ask(server, address, X_Timeout_Ms="500")
        assert (status, answer["code"]) == (504, "deadline_exceeded"), answer
    finally:
        remote.counterpart.process.send_signal(signal.SIGCONT)


def test_a_server_fetches_what_clients_name(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "models", "double", SOURCE)
    counterpart = remote.counterpart
    setting = "input_sources"
    if counterpart.address.startswith("https://"):
        setting = "private_input_sources"  # it is on this machine
    remote.put("rows.npy", npy(ROWS))
    pairs = (
        f"model_repository={tmp_path / 'models'}",
        f"{setting}={[counterpart.address]}",
        "input_cache_ttl_s=0",
    )
    arguments = [part for pair in pairs for part in ("--set", pair)]
    with started(tmp_path, *arguments, environment=counterpart.environment) as server:
        # Of another size: nginx makes its tag of seconds and bytes.
        for rows in (ROWS, ROWS, ROWS[1:] * 3):
            remote.put("rows.npy", npy(rows))
            status, answer = ask(server, f"{counterpart.address}/rows.npy")
            assert status == 200, answer
            assert np.array_equal(answer["outputs"]["y"], rows * 2)
        status, answer = ask(server, f"{counterpart.address}/none.npy")
        assert (status, answer["code"]) == (404, "input_missing"), answer
        outside = counterpart.address.replace("/repository", "/other")
        status, answer = ask(server, f"{outside}/rows.npy")
        assert (status, answer["code"]) == (400, "invalid_input"), answer
        if setting == "input_sources":  # nginx goes on without its first process
            check_silence(remote, server)
        shown = server.errors
    for name, value in counterpart.environment.items():
        if "KEY" in name:
            assert value not in shown
    assert SECRET not in shown
