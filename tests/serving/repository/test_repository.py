"""Models on disk that come and go: what is loaded at start, and what clients load and unload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from batcher.config.settings import ServerSettings
from batcher.errors import (
    ConfigError,
    Draining,
    Forbidden,
    InvalidInput,
    ModelNotReady,
    UnknownModel,
)
from batcher.frontends.endpoints.oip.load_parameters import load_for_client
from batcher.serving.model_version import ModelState
from batcher.serving.repository.fetching import make_stores
from batcher.serving.repository.folders import find_models
from batcher.serving.repository.listing import Listing
from batcher.serving.repository.repository import ModelRepository
from tests.serving.test_server_lifecycle import listen
from tests.support.crossing import PATIENCE
from tests.support.serving import Serving

MODEL = """
format: python
class: net:Net
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4]}]
"""
CODE = "class Net:\n    def predict(self, inputs):\n        return {'y': inputs['x'] * %s}\n"


def write(folder: Path, factor: str = "2", model: str = MODEL) -> None:
    """Write a version of a model that multiplies by `factor`, newer than whatever was there."""
    before = folder.joinpath("net.py").stat().st_mtime_ns if folder.exists() else 0
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("model.yaml").write_text(model)
    code = folder / "net.py"
    code.write_text(CODE % factor)
    later = max(before, code.stat().st_mtime_ns) + 2_000_000_000
    os.utime(code, ns=(later, later))


class Repository:
    """A folder of models, the server that serves them, and `loop` that turns it."""

    def __init__(self, base: Path, **settings: Any) -> None:
        """Serve `base/models`, loaded by clients unless `settings` say otherwise."""
        self.folder = base / "models"
        self.serving = Serving()
        common = {
            "model_control": "explicit",
            "model_repository": "models",
            "defaults": {"device": "cpu", "versions": "all"},
        }
        self.repository = ModelRepository(
            self.serving.server, ServerSettings(**{**common, **settings}), base
        )

    def wait(self, deferred: Deferred[None]) -> Any:
        """Turn the loop until `deferred` has fired; return its result or failure."""
        return self.serving.loop.wait_for(deferred)

    def start(self) -> None:
        """Load what is to be there from the start."""
        for started in self.wait(self.repository.start()):
            assert self.wait(started) is None

    def load(self, name: str = "m", **parameters: Any) -> None:
        """Load a model, and expect that to succeed."""
        assert self.wait(load_for_client(self.repository, name, parameters)) is None

    def answer(self, version: str = "") -> list[float]:
        """Return what the model `m` makes of 1."""
        return self.serving.values(self.serving.infer(1, version=version))

    def index(self) -> dict[str, tuple[ModelState | None, str]]:
        """Return state and detail of each version by its title."""
        return {
            f"{one.name}/{one.version}": (one.state, one.detail)
            for one in self.wait(self.repository.versions())
        }


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """Return a repository with version 1 of the model `m`, nothing loaded."""
    write(tmp_path / "models/m/1")
    repository = Repository(tmp_path, load_at_start=())
    repository.start()
    yield repository
    repository.serving.end()


def test_a_user_without_a_home_needs_none_for_folders_and_hears_of_it_for_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    monkeypatch.setattr("pathlib.Path.expanduser", lambda path: homeless())
    write(tmp_path / "models/m/1")
    repository = Repository(tmp_path, model_control="none")
    repository.start()
    assert repository.answer() == [2.0]
    repository.serving.end()
    stores = make_stores(ServerSettings(model_repository="s3://b"), tmp_path, lambda *_: None)
    with pytest.raises(ConfigError, match="store_cache: expected a folder; expected XDG_CACHE"):
        _ = stores.cache.folder


def test_nothing_is_loaded_that_is_not_wanted_at_start(repository: Repository) -> None:
    assert repository.index() == {"m/1": (None, "not loaded")}
    assert repository.serving.server.unready() == {}
    assert isinstance(listen(repository.serving.infer(1))[0].value, UnknownModel)


def test_instances_of_all_models_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.config.settings.cores", lambda: 9)
    write(tmp_path / "models/m/1")
    write(tmp_path / "models/n/1")
    repository = Repository(tmp_path, model_control="none", models={"n": {"instances": 3}})
    repository.start()
    threads = {one.title: one.settings.torch_threads for one in repository.serving.server}
    assert threads == {"m/1": 2, "n/1": 2}
    repository.serving.end()


def test_a_model_is_loaded_unloaded_and_loaded_again(repository: Repository) -> None:
    repository.load()
    assert repository.answer() == [2]
    assert repository.index() == {"m/1": (ModelState.READY, "")}
    assert repository.wait(repository.repository.unload("m")) is None
    assert repository.index() == {"m/1": (ModelState.UNLOADED, "unloaded")}
    assert isinstance(listen(repository.serving.infer(1))[0].value, ModelNotReady)
    repository.load()
    assert repository.answer() == [2]


def test_loading_what_is_loaded_and_has_not_changed_does_nothing(repository: Repository) -> None:
    repository.load()
    before = repository.serving.server.find("m")
    repository.load()
    assert repository.serving.server.find("m") is before


def test_a_broken_model_that_is_loaded_is_loaded_anew_also_where_nothing_has_changed(
    repository: Repository,
) -> None:
    repository.load()
    (broken,) = repository.serving.server
    broken.become(ModelState.BROKEN, "it hangs")
    repository.load()
    (served,) = repository.serving.server
    assert served is not broken
    assert served.state is ModelState.READY


def test_what_has_changed_on_disk_takes_the_place_of_what_is_loaded(repository: Repository) -> None:
    repository.load()
    write(repository.folder / "m/1", "5")
    repository.load()
    assert repository.answer() == [5]
    before = repository.serving.server.find("m")
    repository.load()
    assert repository.serving.server.find("m") is before


def test_a_change_that_cannot_be_loaded_is_told_and_the_old_one_serves_on(
    repository: Repository,
) -> None:
    repository.load()
    write(repository.folder / "m/1", "(")
    error = repository.wait(repository.repository.load("m", {})).value
    assert isinstance(error, ModelNotReady)
    assert "SyntaxError" in str(error)
    assert repository.answer() == [2]


def test_new_versions_are_found_and_those_that_are_gone_are_unloaded(
    repository: Repository,
) -> None:
    repository.load()
    write(repository.folder / "m/3", "3")
    repository.load()
    assert (repository.answer(), repository.answer("1")) == ([3], [2])
    for file in repository.folder.joinpath("m/1").rglob("*.*"):
        file.unlink()
    repository.load()
    assert repository.index()["m/1"] == (ModelState.UNLOADED, "unloaded")
    assert repository.answer() == [3]


@pytest.mark.parametrize(
    ("model", "reason"),
    [("format: nothing\n", "format"), (MODEL.replace("net:Net", "net:Other"), "net:Other")],
)
def test_a_model_that_cannot_be_loaded_tells_why_and_may_be_mended(
    repository: Repository, model: str, reason: str
) -> None:
    write(repository.folder / "m/1", model=model)
    error = repository.wait(repository.repository.load("m", {})).value
    assert isinstance(error, ModelNotReady)
    assert reason in str(error)
    assert repository.index()["m/1"][0] is ModelState.FAILED
    assert repository.serving.server.unready() == {}, "a client's request makes no server unready"
    write(repository.folder / "m/1")
    repository.load()
    assert repository.answer() == [2]


def test_two_who_load_one_model_at_once_both_get_it(repository: Repository) -> None:
    first, second = repository.repository.load("m", {}), repository.repository.load("m", {})
    assert (repository.wait(first), repository.wait(second)) == (None, None)
    assert repository.answer() == [2]


def test_a_model_loads_on_when_whoever_asked_for_it_leaves(repository: Repository) -> None:
    leaving = repository.repository.load("m", {})
    failed = listen(leaving)
    leaving.cancel()
    assert len(failed) == 1
    repository.serving.loop.run_until(lambda: bool(list(repository.serving.server)))
    assert repository.wait(repository.serving.server.find("m").settled()) is None
    assert repository.answer() == [2]


def test_whoever_waits_for_a_replacement_may_leave(repository: Repository) -> None:
    repository.load()
    write(repository.folder / "m/1", "5")
    leaving = repository.repository.load("m", {})
    listen(leaving)
    leaving.cancel()
    repository.load()
    while repository.answer() != [5]:
        repository.serving.loop.step()


def test_the_largest_batch_may_be_given_with_the_load(repository: Repository) -> None:
    repository.load(config='{"max_batch_size": 7}')
    assert repository.serving.server.find("m").settings.max_batch_size == 7


@pytest.mark.parametrize(
    "parameters",
    [
        {"file:1/net.py": "cHJpbnQoKQ=="},
        {"config": "{"},
        {"config": "[]"},
        {"config": 3},
        {"config": '{"backend": "onnx"}'},
        {"config": '{"max_batch_size": 0}'},
        {"config": '{"max_batch_size": true}'},
        {"config": '{"max_batch_size": 1e99}'},
        {"config": "[" * 100_000},
    ],
    ids=str,
)
def test_what_a_client_may_not_change_is_refused(
    repository: Repository, parameters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        load_for_client(repository.repository, "m", parameters)
    assert repository.index() == {"m/1": (None, "not loaded")}


def test_what_is_nowhere_is_unknown(repository: Repository) -> None:
    for change in (repository.repository.load("other", {}), repository.repository.unload("other")):
        with pytest.raises(UnknownModel, match="'other'"):
            raise repository.serving.loop.error_of(change)
    assert not repository.repository._turns._of_model, "names that clients send are not kept"
    assert repository.wait(repository.repository.unload("m")) is None, (
        "it is there, and is not loaded"
    )


def test_nobody_changes_a_server_that_is_not_controlled_by_clients(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1")
    repository = Repository(tmp_path, model_control="none")
    repository.start()
    for call in (
        lambda: repository.repository.load("m", {}),
        lambda: repository.repository.unload("m"),
    ):
        with pytest.raises(Forbidden, match="explicit"):
            call()
    write(tmp_path / "models/n/1")
    assert list(repository.index()) == ["m/1"], "what is not served is not told"
    repository.serving.end()


def test_a_name_that_is_to_be_loaded_at_start_must_be_there(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1")
    repository = Repository(tmp_path, load_at_start=("m", "other"))
    with pytest.raises(ConfigError, match=r"load_at_start: expected of m; got 'other'"):
        raise repository.serving.loop.error_of(repository.repository.start())
    repository.serving.end()


def test_a_name_that_is_to_be_loaded_at_start_must_be_readable(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1")
    (tmp_path / "models/other").symlink_to("other")
    repository = Repository(tmp_path, load_at_start=("m", "other"))
    with pytest.raises(ConfigError, match=r"got 'other', which cannot be read: .*Too many levels"):
        raise repository.serving.loop.error_of(repository.repository.start())
    repository.serving.end()


def test_clients_load_models_while_another_that_the_settings_name_is_gone(tmp_path: Path) -> None:
    for name in ("m", "other"):
        write(tmp_path / "models" / name / "1")
    repository = Repository(tmp_path, load_at_start=(), models={"other": {}})
    repository.start()
    (tmp_path / "models/other").rename(tmp_path / "gone")
    repository.load()
    assert repository.answer() == [2]
    assert repository.index() == {"m/1": (ModelState.READY, "")}
    failure = repository.serving.loop.error_of(load_for_client(repository.repository, "other", {}))
    assert isinstance(failure, ModelNotReady)
    assert "no such model in the repository, which has: m" in str(failure)
    repository.serving.end()


class SlowDisk:
    """Stands for `find_models`: looks at the disk once the test lets it.

    Attributes:
        looks: how many listings have begun.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.go_on = Event()

    def __call__(self, settings: ServerSettings, base: Path, known: Any) -> Listing:
        self.looks += 1
        assert self.go_on.wait(PATIENCE)
        return find_models(settings, base, known)


def test_the_loop_turns_while_the_disk_is_read_and_the_server_is_not_ready_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr("batcher.serving.repository.reading.find_models", disk)
    write(tmp_path / "models/m/1")
    repository = Repository(tmp_path)
    server = repository.serving.server
    started = repository.repository.start()
    repository.serving.loop.run_until(lambda: disk.looks == 1)
    assert server.unready() == {"the model repository": "still being read"}
    for ask in (lambda: server.find("m"), server.only_model):
        with pytest.raises(ModelNotReady, match="still being read"):
            ask()
    disk.go_on.set()
    for loaded in repository.wait(started):
        assert repository.wait(loaded) is None
    assert server.unready() == {}
    assert repository.answer() == [2]
    repository.serving.end()


def test_who_asks_for_the_index_meanwhile_shares_one_listing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr("batcher.serving.repository.disk.find_sound", disk)
    first = repository.repository.versions()
    repository.serving.loop.run_until(lambda: disk.looks == 1)
    later = [repository.repository.versions() for _ in range(50)]
    failed = listen(later.pop())
    gone = repository.repository.versions()
    gone.addErrback(lambda _: None).cancel()
    disk.go_on.set()
    for listed in (first, *later):
        assert [(one.name, one.version) for one in repository.wait(listed)] == [("m", "1")]
    assert disk.looks == 2
    assert len(failed) == 1, "it has fired too"


def test_a_start_that_a_stop_overtakes_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr("batcher.serving.repository.reading.find_models", disk)
    write(tmp_path / "models/m/1")
    repository = Repository(tmp_path)
    started = repository.repository.start()
    repository.serving.loop.run_until(lambda: disk.looks == 1)
    repository.serving.end()
    disk.go_on.set()
    assert isinstance(repository.serving.loop.error_of(started), Draining)
    assert list(repository.serving.server) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1025, r"at most 1024, since `max_client_batch_size` is 1024; got 1025"),
        (1 << 20, "at most 1024"),
        (101, r"at most 100, since a row has 32 bytes .* `max_queue_bytes` is 3200; got 101"),
    ],
)
def test_a_client_cannot_ask_for_batches_that_fill_the_memory(
    tmp_path: Path, rows: int, expected: str
) -> None:
    write(tmp_path / "models/m/1")
    defaults = {"device": "cpu", "max_queue_bytes": 3200, "max_batch_size": 64}
    repository = Repository(tmp_path, load_at_start=(), defaults=defaults)
    repository.start()
    with pytest.raises(InvalidInput, match=expected):
        raise repository.serving.loop.error_of(
            maybeDeferred(repository.repository.load, "m", {"max_batch_size": rows})
        )
    assert repository.index() == {"m/1": (None, "not loaded")}
    repository.load(config='{"max_batch_size": 100}')
    assert repository.answer() == [2]
    repository.serving.end()


def test_the_operator_may_have_larger_batches_and_clients_may_have_those(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1")
    defaults = {"device": "cpu", "max_queue_bytes": 3200, "max_batch_size": 2000, "warmup": False}
    repository = Repository(tmp_path, load_at_start=(), defaults=defaults)
    repository.start()
    repository.load(config='{"max_batch_size": 2000}')
    assert repository.answer() == [2]
    repository.serving.end()
