"""New versions under load on a real server: no request is lost, none is answered by a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.serving import server_process
from benchmarks.trials.changes import Changes
from benchmarks.trials.clients import Load, under_load

CANARY = "{version: latest, steps: [20], every: 1d, min_requests: 1000000}"


def test_no_request_is_lost_or_wrong_over_reloads_promotes_and_aborts(tmp_path: Path) -> None:
    repository, log = tmp_path / "models", tmp_path / "log"
    Changes.write(repository)
    settings = (
        f"state_folder={tmp_path}",
        "model_control=explicit",
        f"models.tried.canary={CANARY}",
    )
    with server_process(repository, *settings, log=log) as server:
        made = Changes(server, repository, log)
        replaced, tried = (Load(server.http, name, 4, 0.01) for name in ("replaced", "tried"))
        with under_load(replaced, tried):
            changes: list[Callable[[], None]] = [made.reload, made.promote, made.abort]
            for _ in range(3):
                for change in changes:
                    change()
    for load, meant in ((replaced, made.replaced), (tried, made.tried)):
        assert {(one.status, one.number < 0) for one in load.answered} == {(200, False)}
        assert not [one for one in load.answered if not meant.is_right(one)]
        assert len({one.number for one in load.answered}) > 1
    assert {one.told for one in replaced.answered} == {""}
    assert all(one.told == str(one.number) for one in tried.answered)
    assert "Traceback" not in log.read_text()
