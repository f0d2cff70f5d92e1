"""Manifests as a cluster would get them: rendered by kustomize, and by Helm's own library.

kustomize is the one in kubectl, which needs no cluster for it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from batcher.config.settings import ServerSettings, load_settings
from tests.end_to_end.processes import ROOT
from tests.end_to_end.programs import FOLDER, RUN_LIMIT_S, ended

KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "batcher"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())


class Manifests:
    """What one rendering has.

    Attributes:
        documents: all manifests, in their order.
    """

    def __init__(self, text: str) -> None:
        self.documents = [each for each in yaml.safe_load_all(text) if each]

    def one(self, kind: str) -> Any:
        """The only manifest of a kind."""
        (found,) = [each for each in self.documents if each["kind"] == kind]
        return found

    def has(self, kind: str) -> bool:
        """Return whether there is a manifest of a kind."""
        return any(each["kind"] == kind for each in self.documents)

    @property
    def pod(self) -> Any:
        """The specification of the Deployment's pods."""
        return self.one("Deployment")["spec"]["template"]["spec"]

    @property
    def container(self) -> Any:
        """The only container of the pods."""
        (found,) = self.pod["containers"]
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the manifests set in the container."""
        return {each["name"]: each["value"] for each in self.container["env"]}

    def files(self, volume: str) -> dict[str, str]:
        """The files of a pod's volume, which is a ConfigMap, by their paths."""
        (source,) = [each["configMap"] for each in self.pod["volumes"] if each["name"] == volume]
        maps = [each for each in self.documents if each["kind"] == "ConfigMap"]
        (found,) = [each for each in maps if each["metadata"]["name"] == source["name"]]
        paths = {each["key"]: each["path"] for each in source.get("items", ())}
        return {paths.get(key, key): text for key, text in found["data"].items()}

    def settings(self, folder: Path) -> ServerSettings:
        """The settings of the servers, as the server reads its file and variables."""
        (folder / "config.yaml").write_text(self.files("config")["config.yaml"])
        return load_settings(folder / "config.yaml", self.environment)


def kustomized(folder: Path) -> Manifests:
    """Return what `kubectl kustomize` makes of a folder."""
    done = ended([tool("kubectl"), "kustomize", folder])
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return Manifests(done.stdout)


def charted(values: Mapping[str, Any], release: str = "batcher") -> Manifests:
    """Return what Helm makes of the chart with `values`; Helm's lint finds no fault."""
    done = render(values, release)
    assert done.returncode == 0, done.stderr
    rendered = json.loads(done.stdout)
    assert rendered["faults"] == []
    texts = [text for path, text in rendered["texts"].items() if path.endswith(".yaml")]
    return Manifests("\n---\n".join(texts))


def render(values: Mapping[str, Any], release: str = "batcher") -> subprocess.CompletedProcess[str]:
    """Run Helm's library on the chart with `values` to its end."""
    return subprocess.run(
        [tool("python"), Path(__file__).with_name("render_chart.py"), CHART, release],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )


def tool(name: str) -> Path:
    """Return a program of `tools.txt`; skip the test where it is not installed."""
    program = FOLDER / "tools" / "bin" / name
    if not program.exists():
        pytest.skip(f"{program} is not there: `make tools` installs it")
    return program
