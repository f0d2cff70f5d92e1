"""The end of a service: what is announced first, and when ports and requests come to an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from batcher.app.service import State
from batcher.frontends.endpoints.readiness import unready_error
from tests.serving.repository.test_repository import write
from tests.support.service import MemoryService
from tests.support.transports import connect


@pytest.fixture
def leaving(tmp_path: Path) -> tuple[MemoryService, Deferred[None]]:
    """Return a service with `pre_stop_s: 10` that was told to stop, and its end."""
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(tmp_path, "pre_stop_s: 10\ndrain_timeout_s: 10\n")
    service.start()
    assert unready_error(service.server) is None
    return service, service.service.stopService()


def test_before_it_stops_it_is_not_ready_and_takes_connections_and_requests(
    leaving: tuple[MemoryService, Deferred[None]],
) -> None:
    service, stopped = leaving
    service.loop.clock.advance(9.9)
    assert service.service.state is State.LEAVING
    assert unready_error(service.server) is not None
    assert service.ports.closed == 0
    assert service.value(service.infer()) == 2
    assert not stopped.called
    service.loop.clock.advance(0.2)
    assert service.ports.closed == 1
    service.wait(stopped)
    assert service.service.state is State.STOPPED


def test_a_second_signal_does_not_begin_the_wait_anew(
    leaving: tuple[MemoryService, Deferred[None]],
) -> None:
    service, stopped = leaving
    service.loop.clock.advance(6)
    again = service.service.stopService()
    service.loop.clock.advance(4.1)
    service.wait(stopped)
    service.wait(again)


def test_a_reload_while_it_leaves_is_refused(
    leaving: tuple[MemoryService, Deferred[None]],
) -> None:
    service, stopped = leaving
    assert service.refused() == "the server is being stopped"
    service.loop.clock.advance(10.1)
    service.wait(stopped)


def test_the_drain_timeout_begins_when_the_ports_close(
    leaving: tuple[MemoryService, Deferred[None]],
) -> None:
    service, _ = leaving
    connect("loop", service.service.front, service.loop.clock).send(b"POST /predict")
    service.loop.clock.advance(10.1)
    service.loop.clock.advance(9)
    assert service.service.state is State.DRAINING
    service.loop.clock.advance(2)
    assert service.service.state is State.STOPPED


def test_a_service_that_still_starts_stops_at_once(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(tmp_path, "pre_stop_s: 10\n")
    service.begin()
    service.service.ready.addErrback(lambda _: None)
    service.service.stopService()
    assert service.service.state is State.STOPPED


def test_jobs_that_take_long_to_stop_hold_up_no_client(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(tmp_path, "drain_timeout_s: 10\n")
    service.start()
    service.service._jobs = StuckJobs()  # type: ignore[assignment]  # the methods that are called
    drained: list[bool] = []
    ways_in: Any = service.service._frontends
    drain = ways_in.drain
    ways_in.drain = lambda: drained.append(True) or drain()  # type: ignore[func-returns-value]
    stopped = service.service.stopService()
    service.loop.clock.advance(0.1)
    assert drained == [True]
    service.loop.clock.advance(10.1)
    service.wait(stopped)


class StuckJobs:
    """Jobs that do not stop."""

    def stop(self) -> Deferred[None]:
        return Deferred()

    def close(self) -> None:
        """Let go of nothing."""
