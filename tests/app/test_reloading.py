"""Reloads: everything that has changed is applied in one turn of the loop, or nothing is, and the reasons are told."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from threading import enumerate as threads
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from batcher.app.service import State
from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, Draining, ModelLoadError, ReloadRefused, UnknownModel
from batcher.serving.model_version import ModelState
from tests.serving.repository.test_repository import write
from tests.serving.test_server_lifecycle import Stuck, listen
from tests.support.gate import GATE
from tests.support.models import RecordingModel, checked, model_spec, rows
from tests.support.service import MemoryService
from tests.support.serving import SETTINGS

HASTY = "load_timeout_s: 5"

GATED = "2}\n\nfrom tests.support.gate import GATE\n\nGATE.stop()\n#"
"""A factor behind which the module stops at the gate while it is imported."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[MemoryService]:
    """Return a service that serves the models `m` and `n`, which multiply by 2 and by 3."""
    write(tmp_path / "models/m/1", "2")
    write(tmp_path / "models/n/1", "3")
    service = MemoryService(tmp_path)
    service.start()
    yield service
    GATE.open()
    service.end()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Return what the log is told of reloads."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "batcher.app.reloading":
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def closed_gate_in(folder: Path) -> None:
    """Have the model in `folder` stop while it loads."""
    GATE.close()
    write(folder, GATED)


class TestWhatChanged:
    def test_what_has_not_changed_is_not_touched(
        self, service: MemoryService, told: list[str]
    ) -> None:
        before, router = service.found(), service.service.front.router
        service.reload()
        assert service.found() == before
        assert service.service.front.router is router
        assert told == ["reloaded: nothing has changed"]

    def test_only_the_model_whose_settings_changed_is_loaded_anew(
        self, service: MemoryService, told: list[str]
    ) -> None:
        before = service.found()
        service.configure("models: {m: {max_batch_size: 5}}\n")
        service.reload()
        after = service.found()
        assert after["m/1"].settings.max_batch_size == 5
        assert after["n/1"] is before["n/1"]
        assert before["m/1"].state is ModelState.UNLOADED
        assert told == ["reloaded: models, model m/1 replaced"]

    def test_a_default_that_a_model_overrides_does_not_reload_it(
        self, service: MemoryService
    ) -> None:
        service.configure("models: {m: {max_batch_size: 5}}\n")
        service.reload()
        before = service.found()
        service.configure("models: {m: {max_batch_size: 5}}\n", defaults="max_batch_size: 7")
        service.reload()
        after = service.found()
        assert after["m/1"] is before["m/1"]
        assert after["n/1"].settings.max_batch_size == 7

    def test_a_model_whose_files_changed_is_loaded_anew(self, service: MemoryService) -> None:
        before = service.found()
        write(service.folder / "m/1", "5")
        service.reload()
        assert service.value(service.infer("m")) == 5
        assert service.found()["n/1"] is before["n/1"]

    def test_models_and_versions_come_and_go_with_their_folders(
        self, service: MemoryService, told: list[str]
    ) -> None:
        write(service.folder / "m/2", "20")
        write(service.folder / "o/1", "7")
        rmtree(service.folder / "n")
        service.reload()
        assert sorted(service.found()) == ["m/1", "m/2", "o/1"]
        assert (service.value(service.infer("m")), service.value(service.infer("o"))) == (20, 7)
        assert isinstance(service.loop.error_of(service.infer("n")), UnknownModel)
        assert told == ["reloaded: model m/2 loaded, model o/1 loaded, model n/1 unloaded"]
        rmtree(service.folder / "o")
        service.reload()
        assert service.server.only_model() == "m"

    def test_a_model_that_went_may_come_back(self, service: MemoryService) -> None:
        service.configure("load_at_start: [m]\n")
        service.reload()
        assert list(service.found()) == ["m/1"]
        service.configure()
        service.reload()
        assert service.value(service.infer("n")) == 3

    def test_another_folder_of_models_is_served_instead(
        self, service: MemoryService, tmp_path: Path
    ) -> None:
        write(tmp_path / "others/m/1", "9")
        service.configure("model_repository: others\n")
        service.reload()
        assert list(service.found()) == ["m/1"]
        assert service.value(service.infer("m")) == 9

    def test_models_that_the_program_added_itself_are_left_alone(
        self, service: MemoryService
    ) -> None:
        definition = ModelDefinition(model_spec(name="own"), "python", Path(), Path())
        added = service.server.add(
            definition, SETTINGS, lambda progress: checked(RecordingModel(definition.spec))
        )
        assert service.wait(added) is None
        service.reload()
        assert sorted(service.found()) == ["m/1", "n/1", "own/1"]

    def test_metrics_of_a_replaced_model_go_on_and_tell_of_the_new_one(
        self, service: MemoryService
    ) -> None:
        service.value(service.infer("m"))
        write(service.folder / "m/1", "5")
        service.reload()
        metrics = service.server.metrics.model("m", "1")
        assert metrics.load is service.found()["m/1"].scheduler
        assert metrics.batch_size.count == 1

    def test_a_model_that_went_holds_no_place_in_the_metrics_of_what_waits(
        self, service: MemoryService
    ) -> None:
        rmtree(service.folder / "n")
        service.reload()
        assert service.server.metrics.model("n", "1").load is None


class TestSettings:
    def test_the_service_goes_by_the_new_settings(self, service: MemoryService) -> None:
        service.configure(
            "max_body_bytes: 1KiB\nidle_timeout_s: 3\ndrain_timeout_s: 7\naccess_log: true\n"
            "sagemaker: true\n"
        )
        service.reload()
        front = service.service.front
        assert (front.limits.body, front.limits.idle_timeout) == (1024, 3)
        assert service.service.settings.drain_timeout_s == service.server.drain_timeout == 7
        assert front.router.match("POST", "/invocations") is not None
        front.router.journal.answered("/", "", 200, 0)
        assert len(service.lines) == 1
        service.configure()
        service.reload()
        assert front.router.match("POST", "/invocations") is None
        front.router.journal.answered("/", "", 200, 0)
        assert len(service.lines) == 1

    def test_settings_change_without_touching_a_model(
        self, service: MemoryService, told: list[str]
    ) -> None:
        before = service.found()
        service.configure("max_uri_bytes: 1KiB\nserver_timing: true\n")
        service.reload()
        assert service.found() == before
        assert told == ["reloaded: max_uri_bytes, server_timing"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ("port: [\n", "config.yaml:"),
            ("prot: 1\n", "config.yaml:1: unknown setting prot; did you mean port?"),
            ("idle_timeout_s: never\nmax_connections: 0\n", "config.yaml:2: max_connections"),
            (
                "port: 9000\n",
                "config.yaml:1: port: expected 8080 until the server is restarted; got 9000",
            ),
            ("access_log: true\nhost: 0.0.0.0\n", "config.yaml:2: host"),
            ("load_at_start: [m, p]\n", "config.yaml:1: load_at_start: expected of m, n; got 'p'"),
            ("models: {p: {}}\n", "models.p: no such model"),
            ("model_repository: nowhere\n", "config.yaml:1: model_repository"),
            ("models: {m: {default_priority: 9}}\n", "models.m.default_priority: expected 1 to 3"),
        ],
        ids=str,
    )
    def test_wrong_settings_are_refused_with_their_place_and_nothing_changes(
        self, service: MemoryService, told: list[str], settings: str, reason: str
    ) -> None:
        before, kept = service.found(), service.service.settings
        service.configure(settings)
        reasons = service.refused()
        assert reason in reasons
        assert told == [
            f"not reloaded, nothing has changed: {line}" for line in reasons.splitlines()
        ]
        assert service.found() == before
        assert service.service.settings is kept
        assert service.value(service.infer("m")) == 2

    def test_a_file_that_is_gone_is_refused(self, service: MemoryService, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").unlink()
        assert "cannot be read" in service.refused()
        assert service.value(service.infer("m")) == 2

    def test_all_reasons_are_told_at_once(self, service: MemoryService) -> None:
        write(service.folder / "o/1", model="format: nothing\n")
        write(service.folder / "p/1", model="forma: python\n")
        write(service.folder / "q/1", "(")
        service.configure("port: 1\nhost: 0.0.0.0\n")
        told = service.refused()
        for reason in (
            "config.yaml:1: port",
            "config.yaml:2: host",
            "model o/1: model.yaml:1",
            "model p/1: model.yaml:1",
        ):
            assert reason in told
        assert "'q'" not in told, "models are loaded only where nothing stands against it"

    def test_a_model_that_cannot_be_loaded_leaves_every_other_untouched(
        self, service: MemoryService, told: list[str]
    ) -> None:
        before = service.found()
        write(service.folder / "m/1", "5")
        write(service.folder / "n/1", "(")
        write(service.folder / "o/1", "7")
        service.configure("max_uri_bytes: 1KiB\n", defaults="max_batch_size: 7")
        reasons = service.refused()
        assert "n" in reasons
        assert "SyntaxError" in reasons
        assert service.found() == before
        assert (service.value(service.infer("m")), service.value(service.infer("n"))) == (2, 3)
        assert service.service.front.limits.uri == 8192
        for served in before.values():
            assert service.server.metrics.model(*served.title.split("/")).load is served.scheduler

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("raise GeneratorExit('away')", "GeneratorExit: away"),
            ("from asyncio import CancelledError as Net; raise Net", "CancelledError"),
            ("from batcher.errors import ModelLoadError as Net; raise Net", "ModelLoadError"),
        ],
    )
    def test_whatever_the_model_s_code_raises_is_told_by_its_name(
        self,
        service: MemoryService,
        told: list[str],
        logged_errors: list[LogEvent],
        source: str,
        reason: str,
    ) -> None:
        write(service.folder / "n/1")
        (service.folder / "n/1/net.py").write_text(source)
        service.refused()
        assert told == [f"not reloaded, nothing has changed: model 'n' version 1: {reason}"]
        assert logged_errors == []

    def test_a_fault_without_a_text_is_told_by_its_name(
        self, service: MemoryService, logged_errors: list[LogEvent], told: list[str]
    ) -> None:
        def read() -> ServerSettings:
            raise MemoryError

        service.loop.error_of(service.service.reload(read))
        assert told == ["not reloaded", "not reloaded, nothing has changed: MemoryError"]
        logged_errors.clear()

    def test_what_was_loaded_for_a_refused_reload_is_let_go_of(
        self, service: MemoryService
    ) -> None:
        write(service.folder / "m/1", "5")
        write(service.folder / "n/1", "(")
        service.refused()
        while len(service.server._alive) > 2:
            service.loop.step()
        assert service.server._alive == set(service.server)

    def test_every_model_that_cannot_be_loaded_is_named(self, service: MemoryService) -> None:
        write(service.folder / "m/1", "(")
        write(service.folder / "n/1", "undefined")
        write(
            service.folder / "o/1",
            model=(service.folder / "m/1/model.yaml").read_text().replace("net:Net", "net:Other"),
        )
        reasons = service.refused()
        assert "SyntaxError" in reasons
        assert "net:Other" in reasons

    def test_a_refused_reload_may_be_mended(self, service: MemoryService) -> None:
        write(service.folder / "m/1", "(")
        service.refused()
        write(service.folder / "m/1", "5")
        service.reload()
        assert service.value(service.infer("m")) == 5

    def test_outcomes_are_counted(self, service: MemoryService) -> None:
        def exported() -> set[str]:
            lines = service.server.metrics.render().decode().splitlines()
            return {
                line
                for line in lines
                if line.startswith(("batcher_reloads_total", "batcher_config_last"))
            }

        good = "batcher_config_last_reload_successful 1.0"
        assert good in exported()
        service.reload()
        service.configure("port: 1\n")
        service.refused()
        assert exported() == {
            'batcher_reloads_total{outcome="applied"} 1.0',
            'batcher_reloads_total{outcome="refused"} 1.0',
            "batcher_config_last_reload_successful 0.0",
        }
        service.configure()
        service.reload()
        assert good in exported()

    def test_a_fault_of_our_own_refuses_too_and_is_logged(
        self, service: MemoryService, logged_errors: list[LogEvent], told: list[str]
    ) -> None:
        def read() -> ServerSettings:
            raise ZeroDivisionError("by zero")

        assert isinstance(service.loop.error_of(service.service.reload(read)), ZeroDivisionError)
        assert len(logged_errors) == 1
        logged_errors.clear()
        service.reload()


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
        reloaded = listen(service.ask())
        GATE.wait_reached()
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
        seen: list[tuple[bool, bool]] = []
        before = service.found()
        reloaded = listen(service.ask())
        GATE.wait_reached()
        GATE.open()
        while not reloaded:
            service.loop.step()
            seen.append(tuple(service.found()[title] is before[title] for title in ("m/1", "n/1")))  # type: ignore[arg-type]
        assert set(seen) == {(True, True), (False, False)}

    def test_whoever_looked_a_model_up_looks_it_up_again(self, service: MemoryService) -> None:
        generation = service.server.generation
        service.configure("server_timing: true\n")
        service.reload()
        write(service.folder / "m/1", "5")
        service.reload()
        assert service.server.generation > generation

    def test_a_request_that_is_decoded_while_its_model_goes_has_an_answer_of_its_own(
        self, service: MemoryService
    ) -> None:
        served = service.found()["n/1"]
        rmtree(service.folder / "n")
        service.reload()
        assert service.server.successor(served) is served
        with pytest.raises(Draining):
            service.server.infer_on(served, {"x": rows(1)})


class TestOneAtATime:
    def test_what_is_asked_for_while_one_runs_is_one_more_reload_after_it(
        self, service: MemoryService
    ) -> None:
        closed_gate_in(service.folder / "m/1")
        first = listen(service.ask())
        GATE.wait_reached()
        others = [listen(service.ask()) for _ in range(5)]
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
        first = listen(service.ask())
        GATE.wait_reached()
        others = [listen(service.ask()) for _ in range(2)]
        service.configure("port: 1\n")
        GATE.open()
        while not all(others):
            service.loop.step()
        assert first == [None]
        assert [type(one[0].value) for one in others] == [ReloadRefused, ReloadRefused]

    def test_whoever_asked_may_leave(self, service: MemoryService) -> None:
        closed_gate_in(service.folder / "m/1")
        leaving = service.ask()
        left = listen(leaving)
        GATE.wait_reached()
        leaving.cancel()
        assert len(left) == 1
        GATE.open()
        service.reload()
        assert service.server.metrics.reloads["applied"] == 2

    def test_a_reload_before_the_start_has_ended_waits_for_it(self, tmp_path: Path) -> None:
        write(tmp_path / "models/m/1", GATED)
        GATE.close()
        service = MemoryService(tmp_path)
        early = listen(service.ask())
        service.begin()
        GATE.wait_reached()
        later = listen(service.ask())
        assert (service.reads, early, later) == (0, [], [])
        GATE.open()
        while not later:
            service.loop.step()
        assert (service.reads, early, later) == (1, [None], [None])
        service.end()

    def test_whoever_asks_while_one_runs_is_told_in_the_log_that_it_waits(
        self, service: MemoryService, told: list[str]
    ) -> None:
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.ask())
        GATE.wait_reached()
        assert told == []
        waiting = listen(service.ask())
        assert told == [
            "a reload was asked for: it waits for the one before it, which has not ended"
        ]
        GATE.open()
        while not waiting:
            service.loop.step()
        assert (reloaded, len(told)) == ([None], 3)


class TestHangingLoads:
    """A model whose load never ends, and limits of 5 seconds."""

    @pytest.fixture
    def hung(self, service: MemoryService) -> list[Any]:
        """Return the result of a reload that hung and was given up."""
        service.configure("model_control: explicit\n", HASTY)
        service.reload()
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.ask())
        GATE.wait_reached()
        assert reloaded == []
        service.loop.clock.advance(5)
        return reloaded

    def test_the_reload_is_refused_and_nothing_changes(
        self, service: MemoryService, told: list[str], hung: list[Any]
    ) -> None:
        reason = (
            "model 'm' version 1: expected the model to be loaded within 5 s (`load_timeout_s`); "
            "it is not"
        )
        assert [str(failure.value) for failure in hung] == [reason]
        assert told[-1] == f"not reloaded, nothing has changed: {reason}"
        assert service.value(service.infer("m")) == 2

    def test_the_next_reload_goes_on(
        self, service: MemoryService, hung: list[Any], told: list[str]
    ) -> None:
        write(service.folder / "m/1", "5")
        service.reload()
        assert told == ["reloaded: model m/1 replaced"]
        assert service.value(service.infer("m")) == 5

    def test_clients_load_and_unload_on(self, service: MemoryService, hung: list[Any]) -> None:
        assert service.wait(service.service.repository.unload("n")) is None
        assert service.wait(service.service.repository.load("n", {})) is None
        assert service.value(service.infer("n")) == 3

    @pytest.mark.parametrize("strict", [True, False])
    def test_at_the_start_the_model_has_failed(self, tmp_path: Path, strict: bool) -> None:
        write(tmp_path / "models/m/1", GATED)
        GATE.close()
        service = MemoryService(tmp_path, f"strict_start: {str(strict).lower()}\n", HASTY)
        ready = listen(service.service.ready)
        service.begin()
        GATE.wait_reached()
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
        service = MemoryService(tmp_path, f"strict_start: {str(strict).lower()}\n", HASTY)
        listen(service.service.ready)
        service.begin()
        GATE.wait_reached()
        assert service.wait(service.service.stopService()) is None
        service.loop.clock.advance(5)
        assert logged_errors == []
        GATE.open()
        service.end()


class TestStopping:
    def test_a_reload_while_the_server_is_stopped_is_refused(
        self, tmp_path: Path, told: list[str]
    ) -> None:
        write(tmp_path / "models/m/1")
        service = MemoryService(tmp_path)
        service.start()
        stopped = service.service.stopService()
        reasons = service.refused()
        assert reasons == "the server is being stopped"
        assert told == ["not reloaded, nothing has changed: the server is being stopped"]
        service.wait(stopped)
        assert service.refused() == reasons

    def test_who_waits_for_a_start_that_never_ends_is_refused(self, tmp_path: Path) -> None:
        service = MemoryService(tmp_path)
        waiting = listen(service.ask())
        listen(service.service.ready)
        service.wait(service.service.stopService())
        assert isinstance(waiting[0].value, ReloadRefused)

    def test_a_stop_while_models_load_gives_them_up(self, service: MemoryService) -> None:
        before = service.found()
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.ask())
        GATE.wait_reached()
        stopped = listen(service.service.stopService())
        GATE.open()
        while not reloaded or not stopped or service.server._alive:
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
        reloaded = listen(service.ask())
        GATE.wait_reached()
        stopped = listen(service.service.stopService())
        GATE.open()
        while not reloaded:
            service.loop.step()
        assert isinstance(reloaded[0].value, ReloadRefused)
        assert (service.service.state, stopped) == (State.DRAINING, [])
        assert service.found() == before
        stuck.leave.set()
        assert service.value(running) == 2
        while not stopped or service.server._alive:
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
        assert {title: served.state.value for title, served in found.items()} == {
            "m/1": "unloaded",
            "n/1": "ready",
        }
        assert found["n/1"].settings.max_batch_size == 7

    def test_what_they_asked_for_otherwise_is_kept(self, service: MemoryService) -> None:
        assert (
            service.wait(service.service.repository.load("n", {"config": '{"max_batch_size": 5}'}))
            is None
        )
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
        assert {title: served.state.value for title, served in service.found().items()} == {
            "m/1": "ready",
            "n/1": "ready",
        }
        assert not service.service.repository.controlled

    def test_what_they_ask_for_meanwhile_waits_for_the_reload(self, service: MemoryService) -> None:
        closed_gate_in(service.folder / "m/1")
        reloaded = listen(service.ask())
        GATE.wait_reached()
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
        GATE.wait_reached()
        reloaded = listen(service.ask())
        assert service.reads == 0
        GATE.open()
        while not reloaded:
            service.loop.step()
        assert (loaded, reloaded) == ([None], [None])


def test_a_hundred_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(tmp_path)
    service.start()
    gc.freeze()  # each thread that ends looks for cycles among all that is not frozen
    for count in range(100):
        service.configure(defaults=f"max_batch_size: {count % 2 + 5}")
        service.reload()
    gc.unfreeze()
    while len(service.server._alive) > 1:
        service.loop.step()
    for thread in threads():
        if (
            thread.name == "batcher-m/1"
            and thread is not next(iter(service.found()["m/1"].workers))._thread
        ):  # type: ignore[attr-defined]
            thread.join(60)
    assert [thread.name for thread in threads()].count("batcher-m/1") == 1
    assert service.server._alive == set(service.server)
    service.end()


def test_wrong_settings_are_a_configuration_error_for_who_asked(service: MemoryService) -> None:
    service.configure("port: [\n")
    assert isinstance(service.loop.error_of(service.ask()), ConfigError)
