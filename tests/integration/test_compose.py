"""The files of `deploy/compose/`, read by the tools of their fields.

No Docker daemon runs here, so Compose only reads its file. Prometheus runs for real.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.end_to_end.processes import ROOT, started, until
from tests.end_to_end.programs import ended
from tests.integration.balancers import found_program
from tests.integration.prometheus import prometheus

COMPOSE = ROOT / "deploy" / "compose"


def test_compose_reads_its_file() -> None:
    program = found_program("docker-compose", "docker-compose")
    done = ended([program, "-f", COMPOSE / "compose.yaml", "config", "--quiet"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_no_fault_in_configuration_and_alerts() -> None:
    program = found_program("promtool", "prometheus")
    done = ended([program, "check", "config", COMPOSE / "prometheus.yml"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_metrics_of_the_server(tmp_path: Path) -> None:
    with started(tmp_path, "--set", "defaults.torch_threads=1") as server:
        names = set(re.findall(r"batcher_\w+", (COMPOSE / "alerts.yml").read_text()))
        assert names <= set(re.findall(r"batcher_\w+", server.get("/metrics")))
        text = (COMPOSE / "prometheus.yml").read_text()
        text = text.replace("batcher:8080", server.address.removeprefix("http://"))
        (tmp_path / "alerts.yml").write_bytes((COMPOSE / "alerts.yml").read_bytes())
        with prometheus(tmp_path, text.replace("interval: 10s", "interval: 1s")) as values:
            until(lambda: bool(values('up{job="batcher"} == 1 and batcher_connections')))
