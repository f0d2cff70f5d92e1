"""What `deploy/` has for Heroku, App Engine and Cloud Run, started as these platforms do."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.end_to_end.processes import ROOT, started
from tests.integration.balancers import free_port
from tests.integration.test_image import predicted

DEPLOY = ROOT / "deploy"
SERVE = ["serve", "--config", "config.yaml", "--host", "0.0.0.0"]
"""The command of the image."""


class Platform(NamedTuple):
    """What a platform runs.

    Attributes:
        told_by: the variable by which the platform says what it is.
        command: words behind `batcher`.
        environment: variables of the platform's file.
        kills_after_s: seconds between its signal and its end of the process.
        routes: routes that it polls.
    """

    told_by: str
    command: list[str]
    environment: Mapping[str, str]
    kills_after_s: float
    routes: list[str]


def heroku() -> Platform:
    kind, _, command = (DEPLOY / "heroku" / "Procfile").read_text().partition(":")
    assert kind == "web"
    return Platform("DYNO", shlex.split(command)[1:], {}, 30, [])


def app_engine() -> Platform:
    file = yaml.safe_load((DEPLOY / "app_engine" / "app.yaml").read_text())
    routes = [file[check]["path"] for check in ("readiness_check", "liveness_check")]
    return Platform("GAE_SERVICE", SERVE, file["env_variables"], 30, routes)


def cloud_run() -> Platform:
    file: Any = yaml.safe_load((DEPLOY / "cloud_run" / "service.yaml").read_text())
    (container,) = file["spec"]["template"]["spec"]["containers"]
    probes = [container[probe] for probe in ("startupProbe", "livenessProbe")]
    assert probes[0]["periodSeconds"] * probes[0]["failureThreshold"] <= 240
    command = [word.replace("/etc/batcher/", "") for word in container["args"]]
    return Platform("K_SERVICE", command, {}, 10, [each["httpGet"]["path"] for each in probes])


@pytest.mark.parametrize("make", [heroku, app_engine, cloud_run], ids=lambda make: make.__name__)
def test_a_platform_starts_the_server_at_its_port_and_ends_it_in_time(
    make: Any, tmp_path: Path
) -> None:
    platform, port = make(), free_port()
    (tmp_path / "config.yaml").write_text(f"model_repository: {ROOT / 'models'}\n")
    told = {"PORT": str(port), platform.told_by: "batcher", **platform.environment}
    command = ["-m", "batcher.app.cli", *platform.command]
    with started(tmp_path, command=command, environment=told, working=tmp_path) as server:
        assert server.address == f"http://0.0.0.0:{port}"
        server.address = f"http://127.0.0.1:{port}"
        assert predicted(server.address, "digits") == "3"
        for route in platform.routes:
            server.get(route)  # raises where the answer is no 200
        server.signal(signal.SIGTERM)
        assert server.wait(platform.kills_after_s) == 0
