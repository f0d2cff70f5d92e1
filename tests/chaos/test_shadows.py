"""A shadow that hangs, ends its process or is slow: no client notices or sees its answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.trials.clients import Load, under_load
from benchmarks.trials.repository import write_version
from tests.chaos.servers import SECONDS
from tests.end_to_end.processes import started, until


@pytest.mark.parametrize(
    ("kind", "seconds", "outcome"),
    [("hangs", 0.002, "failed"), ("crashes", 0.002, "failed"), ("", 0.05, "dropped")],
    ids=["hangs", "crashes", "slow"],
)
def test_no_client_notices_what_a_shadow_does(
    tmp_path: Path, kind: str, seconds: float, outcome: str
) -> None:
    write_version(tmp_path / "models", "m", 1, 1)
    write_version(tmp_path / "models", "m", 2, 2, seconds, kind)
    settings = (
        f"model_repository={tmp_path / 'models'}",
        "models.m.versions=[1]",
        "models.m.shadow={version: 2, sample: 1}",
        "models.m.worker=process",
        "models.m.watchdog_s=1",
        "models.m.max_batch_size=4",
    )
    arguments = (part for pair in settings for part in ("--set", pair))
    with started(tmp_path, *arguments) as server:
        load = Load(server.address, "m", 16)
        with under_load(load):
            time.sleep(SECONDS)
            counted = f'batcher_shadow_requests_total{{model="m",outcome="{outcome}",version="2"}}'
            until(lambda: shadow_count(server.get("/metrics"), counted) > 0, 60.0)
        assert {(one.status, one.number) for one in load.answered} == {(200, 1)}
        assert "Traceback" not in server.errors


def shadow_count(metrics: str, counted: str) -> float:
    """Return the value of the metric whose name and labels are `counted`; 0 if it is absent."""
    found = [line for line in metrics.splitlines() if line.startswith(counted)]
    return float(found[0].rpartition(" ")[2]) if found else 0.0
