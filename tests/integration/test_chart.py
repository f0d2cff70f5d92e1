"""The chart takes any name of a release, and any values that its schema lets in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.programs import ended
from tests.integration.manifests import charted, render, tool

NUMBERS: Mapping[str, Any] = {
    "image": {"repository": "1.5", "tag": "1e3"},
    "env": {"NO": "off"},
    "gpu": {"count": 1, "resource": "1"},
    "serviceAccount": "123",
    "store": {"address": "https://a.example/b: c", "secret": "1e3"},
    "serviceMonitor": {"enabled": True, "interval": "15"},
}
"""Texts that YAML takes for numbers and truth values, or that end a text of YAML."""

ONE_KEY = {"a/1/b/c": "first", "a/1/b.c": "second", "a/1/b_c": "third", "a/1/b_/c": "fourth"}


@pytest.mark.parametrize("release", ["batcher", "true", "123", "1e3", "0x1f", "a" * 53])
def test_what_looks_like_a_number_stays_a_text(release: str, tmp_path: Path) -> None:
    manifests = charted(NUMBERS, release)
    own = [each for each in manifests.documents if each["kind"] != "ServiceMonitor"]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(own))
    done = ended([tool("kubernetes-validate"), "--strict", "-k", "1.37.0", tmp_path / "all.yaml"])
    assert done.returncode == 0, done.stdout + done.stderr
    labels = manifests.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert labels["app.kubernetes.io/instance"] == release
    assert manifests.container["image"] == "1.5:1e3"
    assert manifests.environment["NO"] == "off"
    assert manifests.pod["serviceAccountName"] == "123"
    assert manifests.environment["BATCHER_MODEL_REPOSITORY"] == "https://a.example/b: c"


def test_no_file_of_a_model_takes_the_place_of_another() -> None:
    assert charted({"models": ONE_KEY}).files("models") == ONE_KEY


def test_servers_with_tls_are_asked_by_tls() -> None:
    settings = {"tls_certificate": "/tls/tls.crt", "tls_key": "/tls/tls.key"}
    manifests = charted({"settings": settings, "serviceMonitor": {"enabled": True}})
    probes = [value for key, value in manifests.container.items() if key.endswith("Probe")]
    assert [each["httpGet"]["scheme"] for each in probes] == ["HTTPS"] * 3
    (scraped,) = manifests.one("ServiceMonitor")["spec"]["endpoints"]
    assert scraped["scheme"] == "https"


@pytest.mark.parametrize("name", ["PORT", "PRE_STOP_S", "DRAIN_TIMEOUT_S", "TLS_CERTIFICATE"])
def test_a_variable_may_not_hide_a_setting_by_which_the_pod_is_made(name: str) -> None:
    done = render({"env": {f"BATCHER_{name}": "80"}})
    assert done.returncode != 0
    assert f"expected settings.{name.lower()}, by which the pod is made" in done.stderr


def test_more_servers_at_least_than_at_most_are_refused() -> None:
    done = render({"autoscaling": {"by": "keda", "min": 3, "max": 2}})
    assert done.returncode != 0
    assert "expected autoscaling.min of at most max; got 3, above 2" in done.stderr
