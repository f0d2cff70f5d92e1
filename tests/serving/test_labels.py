"""Labels: names that stand for versions, whether those are loaded or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.config.model_settings import ModelOverrides
from batcher.config.settings import ServerSettings
from batcher.errors import ModelNotReady, UnknownModel
from batcher.serving.repository.repository import ModelRepository
from tests.serving.repository.test_repository import write
from tests.support.serving import Serving

LABELS = {"m": ModelOverrides(labels={"stable": 3, "canary": 5})}


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving(models=LABELS)
    yield serving
    serving.end()


def test_a_label_names_its_version(serving: Serving) -> None:
    for version in ("3", "5", "7"):
        serving.add_ready(version=version)
    answered = {
        asked: serving.response(serving.infer(1, version=asked)).version
        for asked in ("stable", "canary", "3", "")
    }
    assert answered == {"stable": "3", "canary": "5", "3": "3", "": "7"}


def test_an_unknown_label_is_told_which_versions_there_are(serving: Serving) -> None:
    serving.add_ready(version="3")
    error = serving.loop.error_of(serving.infer(1, version="other"))
    assert isinstance(error, UnknownModel)
    assert "expected version 3, or a label; got 'other'" in str(error)


def test_a_label_whose_version_is_not_there_yet_says_so(serving: Serving) -> None:
    serving.add_ready(version="3")
    error = serving.loop.error_of(serving.infer(1, version="canary"))
    assert isinstance(error, ModelNotReady)
    assert (error.http_status, error.retry_after) == (503, 5)
    assert "label 'canary' stands for version 5, which is not loaded yet" in str(error)


def test_a_label_whose_version_still_loads_says_so_and_answers_afterwards(serving: Serving) -> None:
    serving.add_ready(version="3")
    loading = serving.add(version="5")
    error = serving.loop.error_of(serving.infer(1, version="canary"))
    assert isinstance(error, ModelNotReady)
    assert error.http_status == 503
    assert str(error).startswith("model m/5 is not ready: loading")
    assert serving.loop.wait_for(loading) is None
    assert serving.response(serving.infer(1, version="canary")).version == "5"


def test_labels_that_the_settings_move_name_other_versions_at_once(serving: Serving) -> None:
    serving.add_ready(version="3")
    serving.add_ready(version="5")
    epoch = serving.server.epoch
    moved = {"m": ModelOverrides(labels={"stable": 5})}
    serving.server.traffic.follow(ServerSettings(models=moved))
    assert epoch.over, "fronts look again"
    assert serving.response(serving.infer(1, version="stable")).version == "5"
    assert isinstance(serving.loop.error_of(serving.infer(1, version="canary")), UnknownModel)


class Folder:
    """A folder with six versions of a model, and a server that reads it."""

    def __init__(self, base: Path, **own: object) -> None:
        for version in range(1, 7):
            write(base / f"models/m/{version}", str(version))
        settings = ServerSettings(defaults={"device": "cpu"}, models={"m": own}, cpu_pool_threads=1)
        self.serving = Serving(models=settings.models)
        self.repository = ModelRepository(self.serving.server, settings, base)

    def start(self) -> list[str]:
        """Start, and return the versions that are there afterwards."""
        for started in self.serving.loop.wait_for(self.repository.start()):
            assert self.serving.loop.wait_for(started) is None
        return sorted(version.spec.version for version in self.serving.server)


@pytest.mark.parametrize(
    ("own", "loaded"),
    [
        ({}, "6"),
        ({"versions": "all"}, "123456"),
        ({"versions": {"latest": 2}}, "56"),
        ({"versions": [1, 2]}, "12"),
        ({"labels": {"stable": 3}}, "36"),
        ({"labels": {"stable": 3}, "traffic": {"stable": 9, 5: 1}}, "356"),
        ({"shadow": {"version": 2}}, "26"),
        ({"labels": {"stable": 30}}, "6"),
    ],
    ids=str,
)
def test_what_is_loaded_is_the_newest_and_what_the_settings_name(
    tmp_path: Path, own: dict[str, object], loaded: str
) -> None:
    folder = Folder(tmp_path, **own)
    assert folder.start() == list(loaded)
    folder.serving.end()


def test_a_version_on_trial_that_cannot_be_loaded_fails_no_start(tmp_path: Path) -> None:
    folder = Folder(tmp_path, shadow={"version": 4})
    (tmp_path / "models/m/4/net.py").write_text("class Net: pass")
    assert folder.start() == ["4", "6"]
    server = folder.serving.server
    assert server.unready() == {}, "the server is ready without it"
    assert not server.find("m", "4").accepts
    folder.serving.end()
