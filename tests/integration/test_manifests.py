"""The files of `deploy/kubernetes/` and `deploy/compose/`, read by the tools of their fields.

No cluster and no daemon runs here. So manifests are compared with Kubernetes' schemas, and what
they promise with the server's own settings; Prometheus runs for real.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml

from batcher.config.settings import ServerSettings
from tests.end_to_end.processes import ROOT, run, started, until
from tests.end_to_end.programs import FOLDER, ended
from tests.integration.balancers import found_program, free_port

KUBERNETES = ROOT / "deploy" / "kubernetes" / "batcher.yaml"
COMPOSE = ROOT / "deploy" / "compose"


def documents() -> dict[str, Any]:
    """Return the manifests by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}


@pytest.mark.parametrize("version", ["1.31.0", "1.34.0", "1.37.0"])
def test_the_schemas_of_kubernetes_know_every_field(version: str) -> None:
    program = FOLDER / "tools" / "bin" / "kubernetes-validate"
    if not program.exists():
        pytest.skip(f"{program} is not there: `make tools` installs it")
    done = ended([program, "--strict", "-k", version, KUBERNETES])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_settings_of_the_config_map_are_valid(tmp_path: Path) -> None:
    settings = documents()["ConfigMap"]["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(settings.replace("/etc/batcher/models", "models"))
    (tmp_path / "models").symlink_to(ROOT / "models")
    done = run("check", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pod_has_time_to_leave_and_to_drain() -> None:
    settings = ServerSettings(**yaml.safe_load(documents()["ConfigMap"]["data"]["config.yaml"]))
    pod = documents()["Deployment"]["spec"]["template"]["spec"]
    ready = pod["containers"][0]["readinessProbe"]
    noticed_s = ready["periodSeconds"] * (ready["failureThreshold"] + 1)
    assert settings.pre_stop_s >= noticed_s
    assert pod["terminationGracePeriodSeconds"] > settings.pre_stop_s + settings.drain_timeout_s


def test_labels_ports_and_routes_of_the_manifests_belong_together() -> None:
    kinds = documents()
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    server = kinds["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"http": ServerSettings().port}
    assert server["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_compose_reads_its_file() -> None:
    program = found_program("docker-compose", "docker-compose")
    done = ended([program, "-f", COMPOSE / "compose.yaml", "config", "--quiet"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_no_fault_in_configuration_and_alerts() -> None:
    program = found_program("promtool", "prometheus")
    done = ended([program, "check", "config", COMPOSE / "prometheus.yml"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_metrics_of_the_server(tmp_path: Path) -> None:
    program, port = found_program("prometheus", "prometheus"), free_port()
    with started(tmp_path, "--set", "defaults.torch_threads=1") as server:
        names = set(re.findall(r"batcher_\w+", (COMPOSE / "alerts.yml").read_text()))
        assert names <= set(re.findall(r"batcher_\w+", server.get("/metrics")))
        text = (COMPOSE / "prometheus.yml").read_text()
        text = text.replace("batcher:8080", server.address.removeprefix("http://"))
        (tmp_path / "prometheus.yml").write_text(text.replace("interval: 10s", "interval: 1s"))
        (tmp_path / "alerts.yml").write_bytes((COMPOSE / "alerts.yml").read_bytes())
        command = [program, f"--config.file={tmp_path / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={tmp_path / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        with (tmp_path / "prometheus.txt").open("wb") as output:
            prometheus = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            until(lambda: found(port, 'up{job="batcher"} == 1 and batcher_connections'))
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def found(port: int, query: str) -> bool:
    """Return whether Prometheus finds anything for a query; not while it does not listen yet."""
    try:
        address = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        with urlopen(address, timeout=10) as answer:
            return bool(json.load(answer)["data"]["result"])
    except OSError:
        return False
