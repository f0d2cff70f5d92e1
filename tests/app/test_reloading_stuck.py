"""Reloads beside loads that never end, beside a stop, and beside clients that change models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from twisted.logger import LogEvent

from batcher.app.service import State
from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError, ReloadRefused
from batcher.serving.model_version import ModelState
from tests.app.conftest import GATED, closed_gate_in
from tests.serving.repository.test_repository import write
from tests.serving.test_server_lifecycle import Stuck, listen
from tests.support.gate import GATE
from tests.support.models import RecordingModel, checked, model_spec
from tests.support.service import MemoryService
from tests.support.serving import SETTINGS

SHORT_LOAD_TIMEOUT = "load_timeout_s: 5"


class TestHangingLoads:
    """A model whose load never ends, and limits of 5 seconds."""

    @pytest.fixture
    def hung(self, service: MemoryService) -> list[Any]:
        """Return the result of a reload that hung and was given up."""
        service.configure("model_control: explicit\n", SHORT_LOAD_TIMEOUT)
        service.reload()
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        assert reloaded == []
        service.loop.clock.advance(5)
        return reloaded

    def test_the_reload_is_refused_and_nothing_changes(
        self, service: MemoryService, log_lines: list[str], hung: list[Any]
    ) -> None:
        reason = (
            "model 'm' version 1: expected the model to be loaded within 5 s (`load_timeout_s`); "
            "it is not"
        )
        assert [str(failure.value) for failure in hung] == [reason]
        assert log_lines[-1] == f"not reloaded, nothing has changed: {reason}"
        assert service.value(service.infer("m")) == 2

    def test_the_next_reload_goes_on(
        self, service: MemoryService, hung: list[Any], log_lines: list[str]
    ) -> None:
        write(service.folder / "m/1", "5")
        service.reload()
        assert log_lines == ["reloaded: model m/1 replaced"]
        assert service.value(service.infer("m")) == 5

    def test_clients_load_and_unload_on(self, service: MemoryService, hung: list[Any]) -> None:
        assert service.wait(service.service.repository.unload("n")) is None
        assert service.wait(service.service.repository.load("n", {})) is None
        assert service.value(service.infer("n")) == 3

    @pytest.mark.parametrize("strict", [True, False])
    def test_at_the_start_the_model_has_failed(self, tmp_path: Path, strict: bool) -> None:
        write(tmp_path / "models/m/1", GATED)
        GATE.close()
        service = MemoryService(
            tmp_path, f"strict_start: {str(strict).lower()}\n", SHORT_LOAD_TIMEOUT
        )
        ready = listen(service.service.ready)
        service.begin()
        GATE.wait_reached(service.loop)
        service.loop.clock.advance(5)
        assert isinstance(ready[0].value, ModelLoadError) if strict else ready == [None]
        assert service.found()["m/1"].state is ModelState.FAILED
        assert "`load_timeout_s`" in service.found()["m/1"].detail
        GATE.open()
        service.end()

    @pytest.mark.parametrize("strict", [True, False])
    def test_a_server_that_was_stopped_meanwhile_says_nothing_more(
        self, tmp_path: Path, strict: bool, logged_errors: list[LogEvent]
    ) -> None:
        write(tmp_path / "models/m/1", GATED)
        GATE.close()
        service = MemoryService(
            tmp_path, f"strict_start: {str(strict).lower()}\n", SHORT_LOAD_TIMEOUT
        )
        listen(service.service.ready)
        service.begin()
        GATE.wait_reached(service.loop)
        assert service.wait(service.service.stopService()) is None
        service.loop.clock.advance(5)
        assert logged_errors == []
        GATE.open()
        service.end()


class TestStopping:
    def test_a_reload_while_the_server_is_stopped_is_refused(
        self, tmp_path: Path, log_lines: list[str]
    ) -> None:
        write(tmp_path / "models/m/1")
        service = MemoryService(tmp_path)
        service.start()
        stopped = service.service.stopService()
        reasons = service.refused()
        assert reasons == "the server is being stopped"
        assert log_lines == ["not reloaded, nothing has changed: the server is being stopped"]
        service.wait(stopped)
        assert service.refused() == reasons

    def test_who_waits_for_a_start_that_never_ends_is_refused(self, tmp_path: Path) -> None:
        service = MemoryService(tmp_path)
        waiting = listen(service.begin_reload())
        listen(service.service.ready)
        service.wait(service.service.stopService())
        assert isinstance(waiting[0].value, ReloadRefused)

    def test_a_stop_while_models_load_gives_them_up(self, service: MemoryService) -> None:
        before = service.found()
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        stopped = listen(service.service.stopService())
        GATE.open()
        while not reloaded or not stopped or service.server.lifecycle.alive:
            service.loop.step()
        assert isinstance(reloaded[0].value, ReloadRefused)
        assert service.service.state is State.STOPPED
        assert service.found() == before

    def test_what_has_loaded_while_the_last_requests_are_answered_is_given_up(
        self, service: MemoryService
    ) -> None:
        stuck, spec = Stuck(), model_spec(name="own")
        definition = ModelDefinition(spec, "python", Path(), Path())
        assert (
            service.wait(
                service.server.add(
                    definition, SETTINGS, lambda _: checked(RecordingModel(spec, stuck))
                )
            )
            is None
        )
        running, before = service.infer("own"), service.found()
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        stopped = listen(service.service.stopService())
        GATE.open()
        while not reloaded:
            service.loop.step()
        assert isinstance(reloaded[0].value, ReloadRefused)
        assert (service.service.state, stopped) == (State.DRAINING, [])
        assert service.found() == before
        stuck.leave.set()
        assert service.value(running) == 2
        while not stopped or service.server.lifecycle.alive:
            service.loop.step()


class TestClients:
    """Under `model_control: explicit`, what clients have loaded and unloaded is theirs."""

    EXPLICIT = "model_control: explicit\n"

    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[MemoryService]:
        write(tmp_path / "models/m/1", "2")
        write(tmp_path / "models/n/1", "3")
        service = MemoryService(tmp_path, self.EXPLICIT + "load_at_start: [m]\n")
        service.start()
        yield service
        GATE.open()
        service.end()

    def test_what_they_unloaded_stays_unloaded_and_what_they_loaded_stays_loaded(
        self, service: MemoryService
    ) -> None:
        assert service.wait(service.service.repository.unload("m")) is None
        assert service.wait(service.service.repository.load("n", {})) is None
        service.configure(self.EXPLICIT + "load_at_start: [m]\n", defaults="max_batch_size: 7")
        service.reload()
        found = service.found()
        assert {title: version.state.value for title, version in found.items()} == {
            "m/1": "unloaded",
            "n/1": "ready",
        }
        assert found["n/1"].settings.max_batch_size == 7

    def test_what_they_asked_for_otherwise_is_kept(self, service: MemoryService) -> None:
        assert service.wait(service.service.repository.load("n", {"max_batch_size": 5})) is None
        before = service.found()
        service.reload()
        assert service.found() == before
        service.configure(
            self.EXPLICIT + "load_at_start: [m]\n", defaults="max_batch_size: 7, timeout_ms: 7000"
        )
        service.reload()
        settings = service.found()["n/1"].settings
        assert (settings.max_batch_size, settings.timeout_ms) == (5, 7000)

    def test_a_model_that_is_newly_named_is_loaded_and_one_that_is_not_is_left_to_them(
        self, service: MemoryService
    ) -> None:
        write(service.folder / "o/1", "7")
        service.reload()
        assert list(service.found()) == ["m/1"]
        service.configure(self.EXPLICIT + "load_at_start: [o]\n")
        service.reload()
        assert sorted(service.found()) == ["m/1", "o/1"], "m is up, and nobody unloaded it"

    def test_new_versions_of_what_is_up_are_loaded_and_what_left_the_disk_is_unloaded(
        self, service: MemoryService
    ) -> None:
        assert service.wait(service.service.repository.load("n", {})) is None
        write(service.folder / "m/2", "20")
        rmtree(service.folder / "n")
        service.reload()
        assert sorted(service.found()) == ["m/1", "m/2"]

    def test_without_their_control_all_that_is_configured_is_served_again(
        self, service: MemoryService
    ) -> None:
        assert service.wait(service.service.repository.unload("m")) is None
        service.configure()
        service.reload()
        assert {title: version.state.value for title, version in service.found().items()} == {
            "m/1": "ready",
            "n/1": "ready",
        }
        assert not service.service.repository.controlled

    def test_what_they_ask_for_meanwhile_waits_for_the_reload(self, service: MemoryService) -> None:
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.begin_reload())
        GATE.wait_reached(service.loop)
        unloaded = listen(service.service.repository.unload("m"))
        assert service.found()["m/1"].state is ModelState.READY
        GATE.open()
        while not unloaded:
            service.loop.step()
        assert (reloaded, unloaded) == ([None], [None])
        assert service.found()["m/1"].state is ModelState.UNLOADED

    def test_a_reload_waits_for_what_they_have_begun(self, service: MemoryService) -> None:
        closed_gate_in(service.folder / "n/1")
        loaded = listen(service.service.repository.load("n", {}))
        GATE.wait_reached(service.loop)
        reloaded = listen(service.begin_reload())
        assert service.reads == 0
        GATE.open()
        while not reloaded:
            service.loop.step()
        assert (loaded, reloaded) == ([None], [None])
