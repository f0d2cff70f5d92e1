"""A server is ready once it knows the batch jobs of before its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.app.service import State
from tests.serving.repository.test_repository import write
from tests.support.service import MemoryService


class ReadLater:
    """Jobs whose notes are read when the test says so."""

    def __init__(self) -> None:
        self.read: Deferred[Any] = Deferred()

    def start(self) -> Deferred[Any]:
        return self.read

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> None:
        """Nothing is open."""


def starting(folder: Path) -> tuple[MemoryService, ReadLater]:
    write(folder / "models/m/1", "2")
    service, jobs = MemoryService(folder), ReadLater()
    service.service._jobs = jobs  # type: ignore[assignment]  # the methods that are called
    service.begin()
    service.loop.run_until(lambda: not service.service.server.unready())
    return service, jobs


def test_it_is_ready_when_the_jobs_are_read(tmp_path: Path) -> None:
    service, jobs = starting(tmp_path)
    ready = service.service.ready
    assert (service.service.state, ready.called) == (State.STARTING, False)
    jobs.read.callback(None)
    assert (service.service.state, ready.called) == (State.SERVING, True)
    service.wait(service.service.stopService())


def test_it_can_be_stopped_before_they_are(tmp_path: Path) -> None:
    service, jobs = starting(tmp_path)
    failures: list[str] = []
    service.service.ready.addErrback(lambda failure: failures.append(failure.getErrorMessage()))
    stopped = service.service.stopService()
    jobs.read.callback(None)
    service.wait(stopped)
    assert failures == ["the server was stopped"]
