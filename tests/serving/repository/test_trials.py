"""Trials of versions on disk: what is loaded for them, and what a restart finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batcher.config.settings import ServerSettings
from batcher.serving.repository.repository import ModelRepository
from tests.batching.test_failure_log import Logged
from tests.serving.repository.test_repository import write
from tests.support.serving import Serving

CANARY = {"version": "latest", "steps": [50, 100], "every": 60, "min_requests": 2}


class Server:
    """A server over a folder of versions of `m`, whose version n multiplies by n."""

    def __init__(self, base: Path, **own: Any) -> None:
        self.base = base
        models = {"m": {"canary": CANARY, "device": "cpu", **own}}
        self.settings = ServerSettings(models=models, cpu_pool_threads=1)
        self.serving = Serving(models=self.settings.models)
        self.serving.server.traffic.follow(self.settings)
        self.repository = ModelRepository(self.serving.server, self.settings, base)

    def start(self) -> str:
        """Start, and return the versions that are there."""
        for started in self.serving.loop.wait_for(self.repository.start()):
            assert self.serving.loop.wait_for(started) is None
        return self.there()

    def there(self) -> str:
        """Return the versions that are there."""
        return "".join(sorted(version.spec.version for version in self.serving.server))

    def ask(self, count: int = 40) -> set[str]:
        """Ask by some routes, and return the versions that have answered."""
        asked = [self.serving.infer(1, route=f"u{number}") for number in range(count)]
        return {self.serving.response(each).version for each in asked}

    def reload(self) -> None:
        """Look at the folder again, as SIGHUP does."""
        rollout = self.serving.loop.wait_for(self.repository.rollout(self.settings))
        made = rollout.make(lambda: self.repository.commit(rollout, self.settings))
        assert self.serving.loop.wait_for(made) is None

    def kept(self) -> None:
        """Wait until its disk's thread has written, or not, what was decided up to now."""
        self.serving.loop.wait_for(self.repository.read(lambda: None))

    def end(self) -> dict[str, Any]:
        """Stop, and return the record on disk."""
        self.serving.loop.wait_for(self.serving.server.drain())
        self.kept()
        self.serving.end()
        record: dict[str, Any] = json.loads((self.base / "state/trials/m.json").read_text())
        return record


def test_a_new_version_is_tried_against_the_one_that_answered_also_after_a_restart(
    tmp_path: Path,
) -> None:
    for number in (1, 2):
        write(tmp_path / f"models/m/{number}", str(number))
    first = Server(tmp_path)
    assert first.start() == "2"
    assert first.ask() == {"2"}
    write(tmp_path / "models/m/3", "3")
    first.reload()
    assert first.there() == "23", "the stable version stays, though it is not the newest"
    assert first.ask() == {"2", "3"}
    record = first.end()
    assert (record["candidate"], record["stable"], record["outcome"]) == ("3", "2", "running")
    again = Server(tmp_path)
    assert again.start() == "23"
    assert again.ask() == {"2", "3"}
    again.serving.server.traffic.canary("m").abort()
    assert again.end()["outcome"] == "rolled_back"
    last = Server(tmp_path)
    assert last.start() == "23"
    assert last.ask() == {"2"}, "it is not tried again"
    write(tmp_path / "models/m/4", "4")
    last.reload()
    assert last.there() == "24"
    assert last.ask() == {"2", "4"}
    last.serving.server.traffic.canary("m").promote()
    last.reload()
    assert last.there() == "4"
    assert last.end()["outcome"] == "promoted"


def test_without_a_canary_no_folder_is_made(tmp_path: Path) -> None:
    write(tmp_path / "models/m/1")
    server = Server(tmp_path, canary=None)
    assert server.start() == "1"
    assert server.ask() == {"1"}
    server.serving.end()
    assert not (tmp_path / "state").exists()


def test_a_state_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, where a folder should be")
    for number in (1, 2):
        write(tmp_path / f"models/m/{number}", str(number))
    server = Server(tmp_path, versions="all")
    assert server.start() == "12"
    assert server.ask() == {"1", "2"}
    server.serving.end()


def test_two_servers_over_one_folder_do_each_other_no_harm(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"models/m/{number}", str(number))
    first, second = Server(tmp_path), Server(tmp_path)
    assert first.start() == "2"
    first.kept()
    assert second.start() == "2"
    with Logged() as log_lines:
        for server in (first, second):
            assert server.ask() == {"2"}
            server.kept()  # the first has written which version is stable, and holds the lock
        write(tmp_path / "models/m/3", "3")
        for server in (first, second):
            server.reload()
            assert server.ask() == {"2", "3"}
            server.kept()
        second.serving.server.traffic.canary("m").promote()
        second.kept()
        assert second.ask() == {"3"}
        first.serving.server.traffic.canary("m").abort()
        assert first.ask() == {"2"}
        record = first.end()
    assert (record["candidate"], record["outcome"]) == ("3", "rolled_back")
    not_kept = [line for line in log_lines if "is not kept" in line]
    assert len(not_kept) == 1, "the second server says so once"
    assert "expected a state_folder of this server's own" in not_kept[0]
    assert second.end()["outcome"] == "promoted", "the first has ended, so the second keeps it"
