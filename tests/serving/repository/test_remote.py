"""Models of a store that serve: at start, at a load by a client, and at a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, UnknownModel
from batcher.serving.repository import fetching
from batcher.serving.repository.stores import stores as stores_module
from tests.serving.repository.test_repository import CODE, MODEL, Repository, write
from tests.serving.test_server_lifecycle import listen
from tests.support.memory_store import MemoryStore

ADDRESS = "s3://bucket/models"


def put(store: MemoryStore, name: str, factor: int) -> None:
    """Put a version that multiplies by `factor` into the store."""
    store.files[f"{name}/model.yaml"] = MODEL.encode()
    store.files[f"{name}/net.py"] = (CODE % factor).encode()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Return the store at every address, whose listings are steady at once."""
    store = MemoryStore()
    monkeypatch.setattr(fetching, "open_store", lambda address: store)
    monkeypatch.setattr(stores_module, "STEADY_S", 0.0)
    return store


class Remote(Repository):
    """A server of models from a store."""

    def __init__(self, base: Path, **settings: Any) -> None:
        """Serve what is in the store unless `settings` say otherwise."""
        common = {
            "model_repository": ADDRESS,
            "store_cache": "cache",
            "model_control": "none",
        }
        super().__init__(base, **{**common, **settings})

    def reload(self, **settings: Any) -> list[str]:
        """Reload, and return what has changed; or why nothing has."""
        repository = self.repository
        own = repository._loads.settings.model_copy(update=settings)
        rollout = self.wait(repository.rollout(own))
        if rollout.reasons:
            return list(rollout.reasons)
        self.wait(rollout.make(lambda: repository.commit(rollout, own)))
        return list(rollout.changes())


@pytest.fixture
def remote(tmp_path: Path, store: MemoryStore) -> Iterator[Remote]:
    """Return a server of version 1 of the model `m`, from the store."""
    put(store, "m/1", 2)
    remote = Remote(tmp_path)
    remote.start()
    yield remote
    remote.serving.end()


def test_models_of_a_store_are_fetched_and_serve(remote: Remote) -> None:
    assert remote.answer() == [2]
    told = [text for title, text in remote.serving.progress if title == "m/1"]
    assert "checking what was fetched" in told


def test_a_reload_without_a_change_fetches_and_loads_nothing(
    remote: Remote, store: MemoryStore
) -> None:
    fetched = store.fetched
    assert [remote.reload() for _ in range(3)] == [[], [], []]
    assert store.fetched == fetched


def test_a_reload_takes_other_content_of_the_same_version(
    remote: Remote, store: MemoryStore
) -> None:
    put(store, "m/1", 7)
    assert remote.reload() == ["model m/1 replaced"]
    assert remote.answer() == [7]


def test_only_versions_that_serve_are_fetched(tmp_path: Path, store: MemoryStore) -> None:
    for number in range(1, 6):
        put(store, f"m/{number}", number)
        store.files[f"m/{number}/weights"] = bytes(1000)
    remote = Remote(tmp_path, defaults={"device": "cpu", "versions": "latest"})
    remote.start()
    assert remote.answer() == [5]
    assert store.fetched < 2000
    put(store, "m/6", 6)
    assert remote.reload() == ["model m/6 loaded", "model m/5 unloaded"]
    assert remote.answer() == [6]
    remote.serving.end()


def test_where_the_newest_version_is_damaged_the_one_before_serves(
    tmp_path: Path, store: MemoryStore
) -> None:
    put(store, "m/1", 1)
    put(store, "m/2", 2)
    store.files["m/2/SHA256SUMS"] = b"0" * 64 + b"  net.py\n"
    remote = Remote(tmp_path, defaults={"device": "cpu", "versions": "latest"})
    remote.start()
    assert remote.answer() == [1]
    assert remote.serving.server.left_out == {"m/2": "it cannot be read"}
    remote.serving.end()


def test_a_store_that_goes_away_takes_nothing_with_it(remote: Remote, store: MemoryStore) -> None:
    store.away = True
    assert remote.reload() == []
    assert remote.answer() == [2]


def test_a_server_starts_from_the_cache_while_the_store_is_away(
    tmp_path: Path, remote: Remote, store: MemoryStore
) -> None:
    store.away = True
    again = Remote(tmp_path)
    again.start()
    assert again.answer() == [2]
    again.serving.end()


def test_a_store_that_never_answered_is_the_reason_of_a_failed_start(
    tmp_path: Path, store: MemoryStore
) -> None:
    store.away = True
    remote = Remote(tmp_path)
    failure = remote.wait(remote.repository.start())
    assert isinstance(failure.value, ConfigError)
    assert "expected s3://bucket/models to answer with its files; the store is away" in str(
        failure.value
    )
    remote.serving.end()


def test_a_place_with_nothing_in_it_ends_the_start(tmp_path: Path, store: MemoryStore) -> None:
    store.files["readme.txt"] = b""
    remote = Remote(tmp_path)
    failure = remote.wait(remote.repository.start())
    assert isinstance(failure.value, ConfigError)
    assert f"expected models in {ADDRESS}, such as NAME/1/model.yaml; there is none" in str(
        failure.value
    )
    remote.serving.end()


@pytest.mark.parametrize("settings", [{"watch_repository_s": 10}, {"model_control": "explicit"}])
def test_a_place_with_nothing_in_it_is_waited_at_where_models_may_come(
    tmp_path: Path, store: MemoryStore, settings: dict[str, Any]
) -> None:
    remote = Remote(tmp_path, **settings)
    remote.start()
    assert list(remote.serving.server) == []
    remote.serving.end()


def test_what_serves_stays_in_the_cache_whoever_has_let_go_of_it(remote: Remote) -> None:
    models, settings = remote.repository._remote, remote.repository._loads.settings
    held = models._stores.cache._held
    before = set(held)
    models._stores.cache.hold_only(frozenset())  # as for another model, while this one was loaded
    assert remote.wait(models.fetch(settings, lambda listing: [])) is None
    assert held.keys() == before != set()


def test_clients_load_from_the_store(tmp_path: Path, store: MemoryStore) -> None:
    remote = Remote(tmp_path, model_control="explicit", load_at_start=())
    remote.start()
    assert isinstance(listen(remote.serving.infer(1))[0].value, UnknownModel)
    put(store, "m/1", 3)
    put(store, "n/1", 4)
    remote.load()
    assert remote.answer() == [3]
    assert remote.index()["n/1"] == (None, "not loaded")
    assert not list(tmp_path.glob("cache/models/*/files/n"))
    remote.serving.end()


def test_a_path_of_a_model_may_be_in_a_store_beside_a_folder(
    tmp_path: Path, store: MemoryStore
) -> None:
    write(tmp_path / "models/local/1")
    put(store, "3", 9)
    remote = Remote(
        tmp_path, model_repository="models", models={"m": {"path": "gs://bucket/digits/"}}
    )
    remote.start()
    assert remote.answer() == [9]
    assert set(remote.index()) == {"m/3", "local/1"}
    remote.serving.end()


def test_of_two_repositories_the_first_has_the_say(tmp_path: Path, store: MemoryStore) -> None:
    write(tmp_path / "models/m/1", "5")
    put(store, "m/4", 4)
    put(store, "n/4", 4)
    remote = Remote(tmp_path, model_repository=("models", ADDRESS))
    remote.start()
    assert remote.answer() == [5]
    assert set(remote.index()) == {"m/1", "n/4"}
    assert "a repository that is named before" in remote.serving.server.left_out["m"]
    remote.serving.end()


@pytest.mark.parametrize(
    ("place", "why"),
    [("s3://key:hidden@bucket", "without a password"), ("ftp://host/hidden", "begins with s3://")],
)
def test_a_wrong_address_is_the_reason_of_a_failed_start(
    tmp_path: Path, place: str, why: str
) -> None:
    remote = Remote(tmp_path, model_repository=place)
    (failure,) = listen(remote.repository.start())
    assert why in str(failure.value)
    assert "hidden" not in str(failure.value)
    remote.serving.end()


def test_readiness_says_how_far_a_version_is(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    serving, lifecycle = remote.serving, remote.serving.server.lifecycle
    lifecycle.set_looking(True)
    assert serving.server.unready() == {"the model repository": "still being read"}
    remote.repository._remote._told("m/1", "fetching, 1.0 of 2.0 MiB")
    assert serving.server.unready() == {"m/1": "fetching, 1.0 of 2.0 MiB"}
    lifecycle.set_looking(False)
    assert serving.server.unready() == {}
    serving.end()


def test_settings_take_one_repository_or_several() -> None:
    assert ServerSettings(model_repository=["a", "s3://b"]).repositories == ("a", "s3://b")
    assert ServerSettings(model_repository="a").repositories == ("a",)
    assert ServerSettings(model_repository=None).repositories == ()
