"""A watched repository: what has changed takes its place by itself, and nothing else is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from batcher.serving.model_version import ModelVersion
from batcher.serving.repository import fetching, looks, reading, source
from batcher.serving.repository.stores import cache, download
from batcher.serving.repository.stores import stores as stores_module
from batcher.serving.repository.watching import RepositoryWatch
from tests.serving.repository.test_remote import ADDRESS, put
from tests.serving.repository.test_repository import CODE, Repository, write
from tests.support.memory_store import MemoryStore

PERIOD = 5.0


class Watching(Repository):
    """A server that watches its repository; `poll` lets the time of a look come."""

    def start(self) -> None:
        """Load what is there, and begin to watch."""
        super().start()
        self.repository.watch.every(PERIOD)

    def poll(self, times: int = 1) -> None:
        """Look, and make what changes follow from it."""
        for _ in range(times):
            self.serving.loop.clock.advance(PERIOD)
            self.serving.loop.run_until(lambda: not self.repository.watch._is_looking)

    @property
    def versions(self) -> list[ModelVersion]:
        """What serves."""
        return list(self.serving.server)

    @property
    def ready(self) -> set[str]:
        """Titles of the versions that take requests."""
        return {version.title for version in self.serving.server if version.accepts}

    def reloads(self, outcome: str) -> int:
        """Return how many changes there were."""
        return self.serving.server.metrics.changes[outcome]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have listings be steady, and times of files be precise, at once."""
    monkeypatch.setattr(stores_module, "STEADY_S", 0.0)
    monkeypatch.setattr(looks, "STEADY_S", 0.0)
    monkeypatch.setattr(looks, "FRESH_NS", 0)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Return the lines that the watch has logged."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == RepositoryWatch.__module__:
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    write(tmp_path / "models/m/1")
    write(tmp_path / "models/other/1", "3")
    watching = Watching(tmp_path, model_control="none", defaults={"device": "cpu"})
    watching.start()
    yield watching
    watching.serving.end()


def test_a_hundred_looks_at_what_has_not_changed_load_nothing(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.poll()  # the first look compares everything once
    before = watching.versions
    compared = []
    monkeypatch.setattr(reading, "source_of", lambda *arguments: compared.append(arguments))
    watching.poll(100)
    assert watching.versions == before
    assert compared == []
    assert watching.reloads("applied") == watching.reloads("refused") == 0


def test_a_new_version_takes_the_place_of_the_one_before(watching: Watching) -> None:
    other = watching.serving.server.find("other")
    write(watching.folder / "m/2", "5")
    watching.poll()
    assert watching.answer() == [5]
    assert watching.ready == {"m/2", "other/1"}
    assert watching.serving.server.find("other") is other
    assert watching.reloads("applied") == 1


def test_a_version_that_is_removed_gives_way_to_the_one_before(watching: Watching) -> None:
    write(watching.folder / "m/2", "5")
    watching.poll()
    for path in (watching.folder / "m/2").iterdir():
        path.unlink()
    (watching.folder / "m/2").rmdir()
    watching.poll()
    assert watching.answer() == [2]


def test_other_content_of_the_same_size_and_time_is_noticed(watching: Watching) -> None:
    watching.poll()
    code = watching.folder / "m/1/net.py"
    status = code.stat()
    code.write_text(CODE % "7")
    os.utime(code, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert code.stat().st_size == status.st_size
    watching.poll()
    assert watching.answer() == [7]


def test_a_clock_that_is_set_back_blinds_no_look(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.poll()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    write(watching.folder / "m/2", "5")
    watching.poll()
    assert watching.answer() == [5]


def test_a_link_that_is_turned_is_noticed(tmp_path: Path) -> None:
    volume = tmp_path / "models/m/1"
    for data, factor in (("..2026_01", "2"), ("..2026_02", "9")):
        write(volume / data, factor)
        for name in ("model.yaml", "net.py"):
            os.utime(volume / data / name, (1000, 1000))
    (volume / "..data").symlink_to("..2026_01")
    for name in ("model.yaml", "net.py"):
        (volume / name).symlink_to(f"..data/{name}")
    watching = Watching(tmp_path, model_control="none", defaults={"device": "cpu"})
    watching.start()
    watching.poll()
    assert watching.answer() == [2]
    (volume / "..next").symlink_to("..2026_02")
    (volume / "..next").replace(volume / "..data")
    watching.poll()
    assert watching.answer() == [9]
    watching.serving.end()


def test_files_that_are_still_written_are_waited_for(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.poll()
    monkeypatch.setattr(looks, "STEADY_S", 3600.0)
    write(watching.folder / "m/2", "5")
    watching.poll(3)
    assert watching.answer() == [2]
    monkeypatch.setattr(looks, "STEADY_S", 0.0)
    watching.poll()
    assert watching.answer() == [5]


def test_a_model_that_cannot_be_loaded_is_tried_once_and_holds_up_no_other(
    watching: Watching,
) -> None:
    write(watching.folder / "m/2", "undefined_name")
    write(watching.folder / "other/2", "4")
    (watching.folder / "m/2/net.py").write_text("raise RuntimeError('broken')\n")
    watching.poll(5)
    assert watching.answer() == [2]
    assert watching.ready == {"m/1", "other/2"}
    assert watching.reloads("refused") == 1
    write(watching.folder / "m/2", "6")
    watching.poll()
    assert watching.answer() == [6]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named_and_what_serves_goes_on(watching: Watching) -> None:
    (watching.folder / "m").chmod(0)
    watching.poll()
    assert watching.answer() == [2]
    (watching.folder / "m").chmod(0o755)


def triton(folder: Path) -> None:
    """Put a version there by a `config.pbtxt` that is right by itself."""
    (folder / "2").mkdir()
    (folder / "2/model.onnx").write_bytes(b"")
    (folder / "config.pbtxt").write_text(
        "backend: 'onnxruntime' dynamic_batching {"
        " preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 1000 }"
    )


def vanish(folder: Path) -> None:
    folder.rename(folder.with_name(f".{folder.name}"))


def empty(folder: Path) -> None:
    (folder / "1").rename(folder / ".1")


@pytest.mark.parametrize(
    ("settings", "harm", "named"),
    [
        ({"models": {"other": {"max_batch_size": 4}}}, triton, "preferred_batch_sizes: expected"),
        ({"models": {"other": {"path": "models/other"}}}, vanish, "models.other: expected"),
        ({"models": {"other": {}}}, vanish, "models.other: no such model"),
        ({"models": {"other": {"versions": [1]}}}, vanish, "models.other: no such model"),
        ({"models": {"other": {}}}, empty, "expected a model that can be read; expected a file"),
        ({"load_at_start": ["m", "other"]}, vanish, "load_at_start: it is not there"),
    ],
    ids=["config.pbtxt", "path", "settings", "versions", "empty", "load_at_start"],
)
def test_a_model_whose_settings_or_folder_are_wrong_is_left_as_it_is_and_holds_up_no_other(
    tmp_path: Path,
    said: list[str],
    settings: dict[str, Any],
    harm: Callable[[Path], None],
    named: str,
) -> None:
    write(tmp_path / "models/m/1")
    write(tmp_path / "models/other/1", "3")
    defaults = {"device": "cpu"}
    watching = Watching(tmp_path, model_control="none", defaults=defaults, **settings)
    watching.start()
    other = watching.serving.server.find("other")
    watching.poll()
    harm(watching.folder / "other")
    write(watching.folder / "m/2", "5")
    watching.poll(2)
    assert watching.answer() == [5]
    assert watching.serving.server.find("other") is other
    assert watching.ready == {"m/2", "other/1"}
    (line,) = [line for line in said if line.startswith("other ")]
    assert line.startswith("other is left as it is, and serves on: ")
    assert named in line
    watching.serving.end()


def test_one_version_of_a_list_that_vanishes_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    for number in ("1", "2"):
        write(tmp_path / "models/m" / number, number)
    settings = {"model_control": "none", "defaults": {"device": "cpu"}}
    watching = Watching(tmp_path, models={"m": {"versions": [1, 2]}}, **settings)
    watching.start()
    vanish(watching.folder / "m/2")
    write(watching.folder / "other/1", "3")
    watching.poll()
    assert watching.ready == {"m/1", "m/2", "other/1"}
    watching.serving.end()


def test_a_folder_beside_the_versions_that_nobody_may_look_into_harms_no_model(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    (watching.folder / "m/backup").mkdir()
    (watching.folder / "locked").mkdir()
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent.name in ("backup", "locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    write(watching.folder / "m/2", "5")
    watching.poll()
    assert watching.ready == {"m/2", "other/1"}


def test_what_cannot_be_read_is_left_out(watching: Watching) -> None:
    (watching.folder / "lost+found").mkdir()
    (watching.folder / "gone").symlink_to("nowhere")
    watching.poll(2)
    assert watching.ready == {"m/1", "other/1"}
    assert list(watching.serving.server.left_out) == ["gone"]
    (watching.folder / "gone").unlink()
    watching.poll()
    assert watching.serving.server.left_out == {}


def test_a_repository_without_any_model_takes_nothing_out_of_service(watching: Watching) -> None:
    watching.folder.rename(watching.folder.with_name("elsewhere"))
    watching.folder.mkdir()
    watching.poll(2)
    assert watching.answer() == [2]
    watching.folder.rmdir()
    watching.poll(2)
    assert watching.answer() == [2]
    watching.folder.with_name("elsewhere").rename(watching.folder)
    write(watching.folder / "m/2", "5")
    watching.poll()
    assert watching.answer() == [5]


def test_nobody_looks_where_the_setting_is_off(watching: Watching) -> None:
    watching.repository.watch.every(0)
    write(watching.folder / "m/2", "5")
    watching.serving.loop.clock.advance(100 * PERIOD)
    assert watching.answer() == [2]
    assert watching.repository.watch._call is None


def test_a_store_is_listed_once_a_look_and_new_versions_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(fetching, "open_store", lambda address: store)
    put(store, "m/1", 2)
    watching = Watching(
        tmp_path,
        model_control="none",
        model_repository=ADDRESS,
        store_cache="cache",
        defaults={"device": "cpu"},
    )
    watching.start()
    listings, fetched = store.listings, store.fetched
    watching.poll(20)
    assert (store.listings - listings, store.fetched - fetched) == (20, 0)
    put(store, "m/2", 5)
    watching.poll()
    assert watching.answer() == [5]
    store.away = True
    watching.poll(2)
    assert watching.answer() == [5]
    assert watching.reloads("applied") == 1
    watching.serving.end()


def test_listing_fetching_reading_and_hashing_run_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, threads = MemoryStore(), dict[str, set[int]]()

    def noted(place: Any, name: str) -> None:
        function = getattr(place, name)

        def call(*arguments: Any, **named: Any) -> Any:
            threads.setdefault(name, set()).add(get_ident())
            return function(*arguments, **named)

        monkeypatch.setattr(place, name, call)

    monkeypatch.setattr(fetching, "open_store", lambda address: store)
    for place, name in (
        *((store, "list"), (store, "fetch"), (download, "damaged"), (cache, "_sync")),
        *((reading, "find_models"), (looks, "paths_of"), (source, "facts_of"), (source, "define")),
    ):
        noted(place, name)
    put(store, "m/1", 2)
    write(tmp_path / "models/other/1")
    watching = Watching(
        tmp_path,
        model_control="none",
        model_repository=(ADDRESS, "models"),
        store_cache="cache",
        defaults={"device": "cpu"},
    )
    watching.start()
    put(store, "m/2", 5)
    write(tmp_path / "models/other/2")
    watching.poll()
    assert watching.ready == {"m/2", "other/2"}
    assert len(threads) == 8
    assert get_ident() not in set().union(*threads.values())
    watching.serving.end()
