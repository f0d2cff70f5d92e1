"""Reloads: all changes are applied in one turn of the loop, or none, and every reason is named."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

import pytest
from twisted.logger import LogEvent

from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, UnknownModel
from batcher.frontends.listening.tls import Tls
from batcher.serving.model_version import ModelState
from tests.serving.repository.test_repository import write
from tests.support.models import RecordingModel, checked, model_spec
from tests.support.service import MemoryService
from tests.support.serving import SETTINGS


class TestLaidOutWrongly:
    def test_a_folder_that_is_left_out_is_named_at_the_reload(
        self, service: MemoryService, warnings: list[str]
    ) -> None:
        (service.folder / "n/1").rename(service.folder / "n/v1")
        service.reload()
        reason = (
            "expected folders of versions that are named by a number, 1, 2, …; got 'v1': rename it "
            "to 1"
        )
        assert warnings == [f"n in the repository is left out: {reason}"]
        assert service.server.left_out == {"n": reason}
        assert service.server.unready() == {}
        (service.folder / "n/v1").rename(service.folder / "n/1")
        service.reload()
        assert service.server.left_out == {}

    @pytest.mark.parametrize("control", ["none", "explicit"])
    def test_without_a_model_the_server_is_not_ready_unless_clients_load_models(
        self, service: MemoryService, control: str
    ) -> None:
        for name in ("m", "n"):
            rmtree(service.folder / name)
        (service.folder / "lost").mkdir()
        service.configure(f"model_control: {control}\n")
        service.reload()
        assert list(service.server.left_out) == ["lost"]
        if control == "explicit":
            assert service.server.unready() == {}
            return
        (reason,) = service.server.unready(public=True).values()
        assert reason.startswith("without a model that can be served")
        assert "batcher serve FILE" in reason
        write(service.folder / "m/1", "2")
        service.reload()
        assert service.server.unready() == {}


class TestWhatChanged:
    def test_what_has_not_changed_is_not_touched(
        self, service: MemoryService, log_lines: list[str]
    ) -> None:
        before, router = service.found(), service.service.front.router
        service.reload()
        assert service.found() == before
        assert service.service.front.router is router
        assert log_lines == ["reloaded: nothing has changed"]

    def test_only_the_model_whose_settings_changed_is_loaded_anew(
        self, service: MemoryService, log_lines: list[str]
    ) -> None:
        before = service.found()
        service.configure("models: {m: {max_batch_size: 5}}\n")
        service.reload()
        after = service.found()
        assert after["m/1"].settings.max_batch_size == 5
        assert after["n/1"] is before["n/1"]
        assert before["m/1"].state is ModelState.UNLOADED
        assert log_lines == ["reloaded: models, model m/1 replaced"]

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

    @pytest.mark.parametrize("how", ["turned", "written through"])
    def test_a_model_that_reads_through_a_link_to_a_folder_is_loaded_anew(
        self, service: MemoryService, how: str
    ) -> None:
        kept = service.folder.parent / "kept"
        for name in ("old", "new"):
            (kept / name).mkdir(parents=True)
            (kept / name / "factor.txt").write_text(name)
        link = service.folder / "m/1/data"
        link.symlink_to(kept / "old")
        (kept / "old/circle").symlink_to(service.folder / "m/1")
        service.reload()
        before = service.found()
        service.reload()
        assert service.found() == before
        if how == "turned":
            link.unlink()
            link.symlink_to(kept / "new")
        else:
            (kept / "old/factor.txt").write_text("new")
        service.reload()
        assert service.found()["m/1"] is not before["m/1"]
        assert service.found()["n/1"] is before["n/1"]

    def test_models_and_versions_come_and_go_with_their_folders(
        self, service: MemoryService, log_lines: list[str]
    ) -> None:
        service.configure(defaults="versions: all")
        service.reload()
        log_lines.clear()
        write(service.folder / "m/2", "20")
        write(service.folder / "o/1", "7")
        rmtree(service.folder / "n")
        service.reload()
        assert sorted(service.found()) == ["m/1", "m/2", "o/1"]
        assert (service.value(service.infer("m")), service.value(service.infer("o"))) == (20, 7)
        assert isinstance(service.loop.error_of(service.infer("n")), UnknownModel)
        assert log_lines == ["reloaded: model m/2 loaded, model o/1 loaded, model n/1 unloaded"]
        rmtree(service.folder / "o")
        service.reload()
        assert service.server.only_model() == "m"

    def test_a_model_whose_folder_cannot_be_read_for_a_while_goes_on(
        self, service: MemoryService
    ) -> None:
        before = service.found()
        for kept in (service.folder / "m", service.folder / "n/1"):
            kept.rename(service.folder.parent / kept.name)
            kept.symlink_to(kept.name)
            service.reload()
            assert service.found() == before
            kept.unlink()
            (service.folder.parent / kept.name).rename(kept)
        service.reload()
        assert service.found() == before

    @pytest.mark.parametrize(
        ("versions", "served"),
        [
            ("all", {"m/1", "m/3", "m/20", "n/1"}),
            ("latest", {"m/20", "n/1"}),
            ("{latest: 2}", {"m/3", "m/20", "n/1"}),
            ("[1, 20]", {"m/1", "m/20"}),
        ],
    )
    def test_the_versions_that_the_settings_name_serve(
        self, service: MemoryService, versions: str, served: set[str]
    ) -> None:
        write(service.folder / "m/3", "3")
        write(service.folder / "m/20", "4")
        if versions == "[1, 20]":
            rmtree(service.folder / "n")
        service.configure(defaults="versions: all")
        service.reload()
        before = service.found()["m/1"]
        service.configure(defaults=f"versions: {versions}")
        service.reload()
        assert service.found().keys() == served
        assert service.found().get("m/1", before) is before, "it was not loaded anew"

    def test_a_version_that_is_named_must_be_there(self, service: MemoryService) -> None:
        service.configure(defaults="versions: [7]")
        assert "model 'm': versions: expected of 1; got 7" in service.refused()

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
        assert service.service.settings.drain_timeout_s == 7
        assert service.server.lifecycle.drain_timeout_s == 7
        assert front.router.match("POST", "/invocations") is not None
        front.router.answer_log.answered("/", "", 200, 0)
        assert len(service.lines) == 1
        service.configure()
        service.reload()
        assert front.router.match("POST", "/invocations") is None
        front.router.answer_log.answered("/", "", 200, 0)
        assert len(service.lines) == 1

    def test_settings_change_without_touching_a_model(
        self, service: MemoryService, log_lines: list[str]
    ) -> None:
        before = service.found()
        service.configure("max_uri_bytes: 1KiB\nserver_timing: true\n")
        service.reload()
        assert service.found() == before
        assert log_lines == ["reloaded: max_uri_bytes, server_timing"]


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
        self, service: MemoryService, log_lines: list[str], settings: str, reason: str
    ) -> None:
        before, kept = service.found(), service.service.settings
        service.configure(settings)
        reasons = service.refused()
        assert reason in reasons
        assert log_lines == [
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
        refusal = service.refused()
        for reason in (
            "config.yaml:1: port",
            "config.yaml:2: host",
            "model o/1: model.yaml:1",
            "model p/1: model.yaml:1",
        ):
            assert reason in refusal
        assert "'q'" not in refusal, "models are loaded only where nothing stands against it"

    def test_a_model_that_cannot_be_loaded_leaves_every_other_untouched(
        self, service: MemoryService, log_lines: list[str]
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
        for version in before.values():
            assert service.server.metrics.model(*version.title.split("/")).load is version.scheduler

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
        log_lines: list[str],
        logged_errors: list[LogEvent],
        source: str,
        reason: str,
    ) -> None:
        write(service.folder / "n/1")
        (service.folder / "n/1/net.py").write_text(source)
        service.refused()
        place = f"({service.folder}/n/1/net.py:1)"
        assert log_lines == [
            f"not reloaded, nothing has changed: model 'n' version 1: {reason} {place}"
        ]
        assert logged_errors == []

    def test_a_fault_without_a_text_is_told_by_its_name(
        self, service: MemoryService, logged_errors: list[LogEvent], log_lines: list[str]
    ) -> None:
        def read() -> ServerSettings:
            raise MemoryError

        service.loop.error_of(service.service.reload(read))
        assert log_lines == ["not reloaded", "not reloaded, nothing has changed: MemoryError"]
        logged_errors.clear()

    def test_what_was_loaded_for_a_refused_reload_is_let_go_of(
        self, service: MemoryService
    ) -> None:
        write(service.folder / "m/1", "5")
        write(service.folder / "n/1", "(")
        service.refused()
        while len(service.server.lifecycle.alive) > 2:
            service.loop.step()
        assert service.server.lifecycle.alive == set(service.server)

    @pytest.mark.parametrize("certificate", ["renewed, and broken meanwhile", "as it was"])
    def test_what_was_loaded_is_let_go_of_where_the_change_fails_at_its_end(
        self,
        service: MemoryService,
        logged_errors: list[LogEvent],
        monkeypatch: pytest.MonkeyPatch,
        certificate: str,
    ) -> None:
        def broken(*_: object) -> None:
            raise OSError("no certificate")

        frontends = service.service._frontends
        if certificate == "as it was":
            monkeypatch.setattr(service.service.repository, "commit", broken)
        else:
            tls = Tls(Path("c.pem"), Path("k.pem"))
            monkeypatch.setattr(frontends, "read_tls", lambda: tls)
            monkeypatch.setattr(service.ports, "renew", broken)
        write(service.folder / "m/1", "5")
        assert service.refused() == "no certificate"
        logged_errors.clear()
        while len(service.server.lifecycle.alive) > 2:
            service.loop.step()
        assert service.server.lifecycle.alive == set(service.server)
        assert service.value(service.infer("m")) == 2

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
        self, service: MemoryService, logged_errors: list[LogEvent], log_lines: list[str]
    ) -> None:
        def read() -> ServerSettings:
            raise ZeroDivisionError("by zero")

        assert isinstance(service.loop.error_of(service.service.reload(read)), ZeroDivisionError)
        assert len(logged_errors) == 1
        logged_errors.clear()
        service.reload()


def test_wrong_settings_are_a_configuration_error_for_who_asked(service: MemoryService) -> None:
    service.configure("port: [\n")
    assert isinstance(service.loop.error_of(service.begin_reload()), ConfigError)
