"""Servers are replaced one by one behind nginx and HAProxy while clients ask."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.integration.balancers import LEARNS_WITHIN_S, Balancer, free_port, haproxy, nginx
from tests.integration.servers import serving
from tests.integration.traffic import Traffic

Balance = Callable[[Path, Sequence[int]], AbstractContextManager[Balancer]]

BALANCERS = pytest.mark.parametrize("balance", [nginx, haproxy], ids=lambda one: one.__name__)

EXIT_LIMIT_S = 20.0
CALM_S = 1.5
"""Seconds of traffic before and after a stop; connections are made and kept in them."""


def stopped_under_traffic(folder: Path, balance: Balance, pre_stop_s: float) -> Traffic:
    """Stop one of two servers for good, and return what clients of the balancer met."""
    ports = (free_port(), free_port())
    settings = (f"pre_stop_s={pre_stop_s}",)
    with ExitStack() as stack:
        server, _ = [stack.enter_context(serving(folder, port, *settings)) for port in ports]
        balancer = stack.enter_context(balance(folder, ports))
        with Traffic(balancer.port).sending() as traffic:
            time.sleep(CALM_S)
            server.signal(signal.SIGTERM)
            assert server.wait(EXIT_LIMIT_S) == 0
            time.sleep(CALM_S)
    assert min(traffic.sent.values()) > 100
    return traffic


@BALANCERS
def test_with_pre_stop_s_no_request_fails_on_any_connection(
    tmp_path: Path, balance: Balance
) -> None:
    traffic = stopped_under_traffic(tmp_path, balance, LEARNS_WITHIN_S)
    assert traffic.failures == {"new": [], "kept": []}


@BALANCERS
def test_without_pre_stop_s_no_request_fails_on_a_kept_connection(
    tmp_path: Path, balance: Balance
) -> None:
    assert stopped_under_traffic(tmp_path, balance, 0).failures["kept"] == []


@pytest.mark.parametrize("fronts", [0, 2])
@BALANCERS
def test_three_servers_are_replaced_one_by_one_without_a_request_that_fails(
    tmp_path: Path, balance: Balance, fronts: int
) -> None:
    ports = (free_port(), free_port(), free_port())
    settings = (f"pre_stop_s={LEARNS_WITHIN_S}", f"fronts={fronts}")
    with ExitStack() as stack:
        old = [stack.enter_context(serving(tmp_path, port, *settings)) for port in ports]
        balancer = stack.enter_context(balance(tmp_path, ports))
        with Traffic(balancer.port).sending() as traffic:
            for server, port in zip(old, ports, strict=True):
                server.signal(signal.SIGTERM)
                assert server.wait(EXIT_LIMIT_S) == 0
                stack.enter_context(serving(tmp_path, port, *settings))
                time.sleep(LEARNS_WITHIN_S)
    assert traffic.failures == {"new": [], "kept": []}


def test_clients_without_a_balancer_lose_nothing_on_kept_connections(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, port) as server, Traffic(port).sending() as traffic:
        time.sleep(CALM_S)
        server.signal(signal.SIGTERM)
        assert server.wait(EXIT_LIMIT_S) == 0
    # Once the server is gone, it refuses connections: that is all a client without balancer gets.
    lost = [failure for failure in traffic.failures["kept"] if "ConnectionRefused" not in failure]
    assert lost == []
    assert traffic.sent["kept"] > 100
