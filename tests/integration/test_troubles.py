"""Three servers behind HAProxy: one is slow, one leaves, one is killed, and no request fails.

Each server tells HAProxy its weight (`agent_check_port`).
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.balancers import haproxy, weight_of
from tests.integration.servers import ThreeServers
from tests.integration.traffic import Traffic

CALM_S = 1.5
MOVES_WITHIN_S = 2.0
"""Seconds within which the load has left a slow server."""

STAYS_SHARE = 0.2
"""Most of its load that a slow server keeps."""

RUNS_TWICE = {"# retry-on": "retry-on"}
"""What an operator changes in HAProxy's file for models that may run a request twice."""


@pytest.mark.parametrize("fronts", [0, 2])
def test_the_load_leaves_a_slow_server_and_no_request_fails_by_one_that_leaves_or_is_killed(
    tmp_path: Path, fronts: int
) -> None:
    with ExitStack() as stack:
        servers = ThreeServers(tmp_path, stack, f"fronts={fronts}")
        behind = haproxy(tmp_path, servers.ports, agents=servers.agents, changes=RUNS_TWICE)
        balancer = stack.enter_context(behind)
        with Traffic(balancer.port).sending() as traffic:
            usual = servers.share(0, CALM_S)
            servers.slow(0).touch()
            time.sleep(MOVES_WITHIN_S)
            left, weight = servers.share(0, CALM_S), weight_of(balancer, servers.ports[0])
            servers.slow(0).unlink()
            servers.replace(1)
            time.sleep(CALM_S)
            servers.running[2].signal(signal.SIGKILL)
            time.sleep(CALM_S)
    assert left <= STAYS_SHARE * usual
    assert weight < 10, "of 100: the server said so itself"
    assert traffic.failures == {"new": [], "kept": []}
