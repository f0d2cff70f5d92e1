"""Reloads while requests come: no request is lost, and one reload runs at a time."""

from __future__ import annotations

import gc
from pathlib import Path
from shutil import rmtree
from threading import enumerate as threads
from typing import Any

import pytest

from batcher.errors import Draining, ReloadRefused
from batcher.serving.model_version import ModelState
from tests.app.conftest import GATED, closed_gate_in
from tests.serving.repository.test_repository import write
from tests.serving.test_server_lifecycle import Stuck, listen
from tests.support.gate import GATE
from tests.support.models import RecordingModel, checked, rows
from tests.support.service import MemoryService
from tests.support.serving import SETTINGS


class TestRequests:
    def test_the_old_one_serves_until_all_are_ready_and_answers_what_it_took(
        self, service: MemoryService
    ) -> None:
        stuck = Stuck()
        definition = service.found()["m/1"].definition
        replaced = service.server.replace(
            definition, SETTINGS, lambda progress: checked(RecordingModel(definition.spec, stuck))
        )
        assert service.wait(replaced) is None
        old, running = service.found()["m/1"], service.infer("m")
        assert stuck.entered.wait(60)
        write(service.folder / "m/1", "5")
        closed_gate_in(service.folder / "n/1")
        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        waiting = service.infer("m")
        assert service.found()["m/1"] is old
        assert service.value(service.infer("n")) == 3
        assert reloaded == []
        GATE.open()
        while not reloaded:
            service.loop.step()
        assert service.value(service.infer("m")) == 5
        assert old.state is ModelState.UNLOADING
        stuck.leave.set()
        assert (service.value(running), service.value(waiting)) == (2, 2), (
            "by the old one, which took them"
        )
        assert old.state is ModelState.UNLOADED

    def test_all_models_change_in_one_turn(self, service: MemoryService) -> None:
        write(service.folder / "m/1", "5")
        closed_gate_in(service.folder / "n/1")
        before = service.found()

        def is_as_before() -> tuple[bool, bool]:
            now = service.found()
            return now["m/1"] is before["m/1"], now["n/1"] is before["n/1"]

        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        seen = {is_as_before()}
        GATE.open()
        while not reloaded:
            service.loop.step()
            seen.add(is_as_before())
        assert seen == {(True, True), (False, False)}

    def test_whoever_looked_a_model_up_looks_it_up_again(self, service: MemoryService) -> None:
        epoch = service.server.epoch
        service.configure("server_timing: true\n")
        service.reload()
        write(service.folder / "m/1", "5")
        service.reload()
        assert epoch.over
        assert not service.server.epoch.over

    def test_a_request_that_is_decoded_while_its_model_goes_has_an_answer_of_its_own(
        self, service: MemoryService
    ) -> None:
        version = service.found()["n/1"]
        rmtree(service.folder / "n")
        service.reload()
        assert version.successor() is version
        with pytest.raises(Draining):
            version.infer({"x": rows(1)})


class TestOneAtATime:
    def test_what_is_asked_for_while_one_runs_is_one_more_reload_after_it(
        self, service: MemoryService
    ) -> None:
        closed_gate_in(service.folder / "m/1")
        first = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        others = [listen(service.begin_reload()) for _ in range(5)]
        assert service.reads == 1
        service.configure("max_uri_bytes: 1KiB\n")
        GATE.open()
        while not all(others):
            service.loop.step()
        assert first == [None]
        assert others == [[None]] * 5
        assert service.reads == 2
        assert service.server.metrics.reloads == {"applied": 2, "refused": 0}
        assert service.service.front.limits.uri == 1024

    def test_all_who_share_a_reload_are_told_of_its_refusal(self, service: MemoryService) -> None:
        closed_gate_in(service.folder / "m/1")
        first = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        others = [listen(service.begin_reload()) for _ in range(2)]
        service.configure("port: 1\n")
        GATE.open()
        while not all(others):
            service.loop.step()
        assert first == [None]
        assert [type(one[0].value) for one in others] == [ReloadRefused, ReloadRefused]

    def test_whoever_asked_may_leave(self, service: MemoryService) -> None:
        closed_gate_in(service.folder / "m/1")
        leaving = service.begin_reload()
        left = listen(leaving)
        GATE.wait_reached(service.loop)
        leaving.cancel()
        assert len(left) == 1
        GATE.open()
        service.reload()
        assert service.server.metrics.reloads["applied"] == 2

    def test_a_reload_before_the_start_has_ended_waits_for_it(self, tmp_path: Path) -> None:
        write(tmp_path / "models/m/1", GATED)
        GATE.close()
        service = MemoryService(tmp_path)
        early = listen(service.begin_reload())
        service.begin()
        GATE.wait_reached(service.loop)
        later = listen(service.begin_reload())
        assert (service.reads, early, later) == (0, [], [])
        GATE.open()
        while not later:
            service.loop.step()
        assert (service.reads, early, later) == (1, [None], [None])
        service.end()

    def test_whoever_asks_while_one_runs_is_told_in_the_log_that_it_waits(
        self, service: MemoryService, log_lines: list[str]
    ) -> None:
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        assert log_lines == []
        waiting = listen(service.begin_reload())
        assert log_lines == [
            "a reload was asked for: it waits for the one before it, which has not ended"
        ]
        GATE.open()
        while not waiting:
            service.loop.step()
        assert (reloaded, len(log_lines)) == ([None], 3)


def test_a_hundred_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(tmp_path)
    service.start()
    gc.freeze()  # each thread that ends looks for cycles among all that is not frozen
    for count in range(100):
        service.configure(defaults=f"max_batch_size: {count % 2 + 5}")
        service.reload()
    gc.unfreeze()
    while len(service.server.lifecycle.alive) > 1:
        service.loop.step()
    (worker,) = service.found()["m/1"].workers
    present: Any = worker
    for thread in threads():
        if thread.name == "batcher-m/1" and thread is not present._thread:
            thread.join(60)
    assert [thread.name for thread in threads()].count("batcher-m/1") == 1
    assert service.server.lifecycle.alive == set(service.server)
    service.end()
