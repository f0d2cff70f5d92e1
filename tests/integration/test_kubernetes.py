"""The manifests of `deploy/kubernetes/` and of the chart keep what they promise.

No cluster runs here. So manifests are compared with Kubernetes' schemas and with the server's own
settings; the queries of autoscalers are asked of a Prometheus, and models are served by the server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from batcher.config.settings import ServerSettings
from tests.end_to_end.processes import Process, run_python, started, until
from tests.end_to_end.programs import ended
from tests.integration.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifests,
    charted,
    kustomized,
    render,
    tool,
)
from tests.integration.prometheus import prometheus

SCHEMAS = ["1.31.0", "1.34.0", "1.37.0"]
FOREIGN = {"ScaledObject", "ServiceMonitor"}
"""Kinds whose schemas are not Kubernetes' own: those of KEDA and of the Prometheus operator."""

CHARTS: dict[str, Mapping[str, Any]] = {
    "chart": {},
    "chart_gpu": {
        "gpu": {"count": 2},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "image": {"repository": "registry.example/batcher-cuda", "tag": "0.1.0"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "chart_models": {
        "models": {
            "doubled/1/model.yaml": "format: python\nclass: model:Doubled\n",
            "doubled/1/model.py": 'class Doubled:\n    "…"\n',
        },
        "autoscaling": {"by": "adapter"},
        "serviceMonitor": {"enabled": True},
    },
    "chart_store": {
        "store": {"address": "s3://my-bucket/models", "secret": "batcher-store"},
        "settings": {"pre_stop_s": 7.5, "drain_timeout_s": 60, "max_image_pixels": 16777216},
        "autoscaling": {"by": "keda"},
        "serviceAccount": "reader",
        "networkPolicy": {"egress": [{"ports": [{"port": 6379}]}]},
        "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a.example/b": "c"}},
    },
}
ALL = ["base", *OVERLAYS, "together", *CHARTS]


@cache
def rendered(name: str) -> Manifests:
    """Return the manifests of the base, of an overlay, or of the chart with values of `CHARTS`."""
    if name in CHARTS:
        return charted(CHARTS[name])
    return kustomized(KUBERNETES / ("base" if name == "base" else f"overlays/{name}"))


@pytest.fixture(params=ALL)
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> Manifests:
    """Each rendering in turn; `together` has several components at once."""
    return together(tmp_path) if request.param == "together" else rendered(request.param)


def together(folder: Path) -> Manifests:
    """Return the base with several components, as an overlay of one's own would have them."""
    copy = shutil.copytree(KUBERNETES, folder / "kubernetes")
    (copy / "overlays" / "mine").mkdir()
    names = ["gpu", "store", "hpa", "service_monitor"]
    overlay = {
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in names],
        "namespace": "models",
    }
    (copy / "overlays" / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return kustomized(copy / "overlays" / "mine")


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_schemas_of_kubernetes_know_every_field(version: str, tmp_path: Path) -> None:
    runtime = yaml.safe_load((KUBERNETES / "serving_runtime.yaml").read_text())
    spec = {key: runtime["spec"][key] for key in ("containers", "volumes")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kserve"}, "spec": spec}
    files = {"kserve": [pod]}
    for name in ALL:
        found = together(tmp_path / name) if name == "together" else rendered(name)
        files[name] = [each for each in found.documents if each["kind"] not in FOREIGN]
    for name, documents in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(documents))
    paths = [tmp_path / f"{name}.yaml" for name in files]
    done = ended([tool("kubernetes-validate"), "--strict", "-k", version, *paths])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_takes_the_settings_and_has_time_to_leave_and_to_drain(
    manifests: Manifests, tmp_path: Path
) -> None:
    settings = manifests.settings(tmp_path)
    ready = manifests.container["readinessProbe"]
    noticed_s = ready["periodSeconds"] * (ready["failureThreshold"] + 1)
    grace_s = manifests.pod["terminationGracePeriodSeconds"]
    assert grace_s > settings.pre_stop_s + settings.drain_timeout_s
    assert settings.pre_stop_s >= noticed_s
    assert settings.host == "0.0.0.0"


def test_labels_ports_and_routes_belong_together(manifests: Manifests) -> None:
    deployment, pod = manifests.one("Deployment"), manifests.pod
    chosen = deployment["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert manifests.one("Service")["spec"]["selector"] == chosen
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = manifests.one(kind)["spec"]
        assert spec.get("selector", spec.get("podSelector")) == {"matchLabels": chosen}
    if manifests.has("ServiceMonitor"):
        labels = manifests.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
        assert labels.items() <= manifests.one("Service")["metadata"]["labels"].items()
    container = manifests.container
    assert container["ports"] == [{"name": "http", "containerPort": ServerSettings().port}]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["enableServiceLinks"] is False


def test_a_server_has_no_rights_and_writes_into_volumes_alone(manifests: Manifests) -> None:
    pod, container = manifests.pod, manifests.container
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {each["name"]: set(each) - {"name"} for each in pod["volumes"]}
    for mount in container["volumeMounts"]:
        assert mount.get("readOnly") or kinds[mount["name"]] == {"emptyDir"}
    assert not manifests.has("Secret"), "credentials are no part of any file"
    policy = manifests.one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    needs_others = "s3://" in json.dumps(manifests.documents)
    assert bool(policy["egress"]) == needs_others


def test_an_autoscaler_alone_decides_how_many_servers_there_are(manifests: Manifests) -> None:
    deployment = manifests.one("Deployment")
    scaled = manifests.has("HorizontalPodAutoscaler") or manifests.has("ScaledObject")
    assert ("replicas" in deployment["spec"]) is not scaled
    kind = "HorizontalPodAutoscaler" if manifests.has("HorizontalPodAutoscaler") else "ScaledObject"
    if scaled:
        target = manifests.one(kind)["spec"]["scaleTargetRef"]
        assert target["name"] == deployment["metadata"]["name"]


@pytest.mark.parametrize("name", ["store", "together", "chart_store"])
def test_the_cache_of_a_store_is_smaller_than_its_volume(name: str, tmp_path: Path) -> None:
    manifests = together(tmp_path) if name == "together" else rendered(name)
    settings = manifests.settings(tmp_path)
    (mount,) = [each for each in manifests.container["volumeMounts"] if each["name"] == "cache"]
    (volume,) = [each for each in manifests.pod["volumes"] if each["name"] == "cache"]
    assert settings.store_cache == mount["mountPath"]
    assert settings.store_cache_bytes < _gibibytes(volume["emptyDir"]["sizeLimit"])
    assert manifests.container["envFrom"] == [{"secretRef": {"name": "batcher-store"}}]


def _gibibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi")) << 30


@pytest.mark.parametrize("name", ["gpu", "together", "chart_gpu"])
def test_a_server_with_a_card_asks_for_it_and_starts_nowhere_else(
    name: str, tmp_path: Path
) -> None:
    manifests = together(tmp_path) if name == "together" else rendered(name)
    assert int(manifests.container["resources"]["limits"]["nvidia.com/gpu"]) >= 1
    assert "memory" in manifests.container["resources"]["limits"]
    assert manifests.settings(tmp_path).defaults.device == "cuda"
    assert "batcher-cuda:0.1.0" in manifests.container["image"]
    assert "nvidia.com/gpu" in {each["key"] for each in manifests.pod["tolerations"]}
    assert manifests.one("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_the_chart_without_values_is_what_kustomize_makes() -> None:
    def essence(manifests: Manifests) -> Any:
        pod = json.loads(json.dumps(manifests.pod))
        for each in (*pod["volumes"], *pod["topologySpreadConstraints"]):
            each.pop("configMap", each.pop("labelSelector", None))
        pod["containers"][0].pop("imagePullPolicy", None)
        return pod

    base, chart = rendered("base"), rendered("chart")
    assert essence(base) == essence(chart)
    settings = [yaml.safe_load(each.files("config")["config.yaml"]) for each in (base, chart)]
    assert settings[0] == settings[1]
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "Service"):
        here, there = (each.one(kind)["spec"] for each in (base, chart))
        alike = here.keys() - {"selector", "podSelector"}
        assert {key: here[key] for key in alike} == {key: there[key] for key in alike}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"autoscaling": {"by": "hpa"}}, "autoscaling/by"),
        ({"settings": {"drain_timeout_s": "soon"}}, "drain_timeout_s"),
        ({"models": {"model.py": "…"}}, "does not match pattern"),
        ({"env": {"BATCHER_PORT": 80}}, "BATCHER_PORT"),
        (
            {"models": {"m/1/model.py": "…"}, "store": {"address": "s3://a/b"}},
            "expected models or store.address; got both",
        ),
    ],
)
def test_the_chart_refuses_values_that_it_does_not_know(
    values: Mapping[str, Any], said: str
) -> None:
    done = render(values)
    assert done.returncode != 0
    assert said in done.stderr


def adapted() -> dict[str, str]:
    """Return the queries of the Prometheus adapter by the names of its metrics."""
    rules = yaml.safe_load((KUBERNETES / "prometheus_adapter.yaml").read_text())["rules"]["custom"]
    matches, group = 'namespace="shop",pod="batcher-1"', "pod"
    return {
        each["name"]["as"]: each["metricsQuery"]
        .replace("<<.LabelMatchers>>", matches)
        .replace("<<.GroupBy>>", group)
        for each in rules
    }


@pytest.mark.parametrize("name", ["hpa", "together", "chart_models"])
def test_an_autoscaler_asks_for_metrics_that_the_adapter_makes(name: str, tmp_path: Path) -> None:
    manifests = together(tmp_path) if name == "together" else rendered(name)
    metrics = manifests.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert {each["pods"]["metric"]["name"] for each in metrics} == set(adapted())


@pytest.mark.parametrize("name", ["keda", "chart_store"])
def test_keda_asks_what_the_adapter_asks(name: str) -> None:
    scaled = rendered(name).one("ScaledObject")
    asked = [_bare(each["metadata"]["query"]) for each in scaled["spec"]["triggers"]]
    assert asked == [_bare(query) for query in adapted().values()]
    base = rendered("hpa").one("HorizontalPodAutoscaler")["spec"]
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == base["behavior"]
    targets = [each["pods"]["target"]["averageValue"] for each in base["metrics"]]
    assert [each["metadata"]["threshold"] for each in scaled["spec"]["triggers"]] == targets


def _bare(query: str) -> str:
    """Return a query without what says whose metrics are meant."""
    bare = re.sub(r'(namespace|pod)=~?"[^"]*",?|sum by \(pod\) |\s', "", query)
    return bare.replace("sum", "").replace("{}", "")


def test_prometheus_answers_what_autoscalers_ask_also_before_a_row_is_refused(
    tmp_path: Path,
) -> None:
    keda = rendered("chart_store").one("ScaledObject")["spec"]["triggers"]
    queries = [*adapted().values(), *(each["metadata"]["query"] for each in keda)]
    labels = {"namespace": "shop", "pod": "batcher-5d9c7b4f6-x2x7k"}
    with started(tmp_path, "--set", "defaults.torch_threads=1") as server:
        target = {"targets": [server.address.removeprefix("http://")], "labels": labels}
        configuration = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "batcher", "static_configs": [target]}],
        }
        asked = [query.replace("batcher-1", labels["pod"]) for query in queries]
        with prometheus(tmp_path, json.dumps(configuration)) as values:
            until(lambda: all(values(query) == [0.0] for query in asked))


def test_models_of_a_config_map_are_served_and_changed_ones_too(tmp_path: Path) -> None:
    manifests = rendered("config_map_models")
    files = manifests.files("models")
    volume = _Volume(tmp_path / "volume")
    volume.write(files)
    environment = manifests.environment | {
        "BATCHER_MODEL_REPOSITORY": str(volume.folder),
        "BATCHER_WATCH_REPOSITORY_S": "0.2",
    }
    with started(tmp_path, environment=environment) as server:
        assert _asked(server) == [[2, 4]]
        source = files["doubled/1/model.py"].replace("2 *", "3 *")
        volume.write(files | {"doubled/1/model.py": source})
        until(lambda: _asked(server) == [[3, 6]])


class _Volume:
    """A volume of a ConfigMap as the kubelet lays it: links through `..data`, which is turned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written = 0

    def write(self, files: Mapping[str, str]) -> None:
        self._written += 1
        data = self.folder / f"..2026_11_30_0{self._written}"
        for path, text in files.items():
            (data / path).parent.mkdir(parents=True, exist_ok=True)
            (data / path).write_text(text)
        (self.folder / "..data_tmp").symlink_to(data.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")
        for top in {path.partition("/")[0] for path in files}:
            if not (self.folder / top).is_symlink():
                (self.folder / top).symlink_to(f"..data/{top}")


def _asked(server: Process) -> Any:
    """Return the answer of the model `doubled` for one row."""
    return _posted(server, "/models/doubled/predict", {"inputs": {"x": [[1, 2]]}})["outputs"]["y"]


def _posted(server: Process, target: str, body: Mapping[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = Request(server.address + target, json.dumps(body).encode(), headers)
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


ONE_DIGIT = {"instances": [[[[0.0] * 8] * 8]]}
KSERVE = """
import json, sys
from pathlib import Path
from kserve import models
def unknown(value, kind, path):
    if kind.startswith("list["):
        return [each for one in value for each in unknown(one, kind[5:-1], path + "[]")]
    known = getattr(models, kind, None)
    if known is None:
        return []
    names = {wire: known.openapi_types[name] for name, wire in known.attribute_map.items()}
    found = [f"{path}.{key}" for key in value if key not in names]
    for key in value.keys() & names.keys():
        found += unknown(value[key], names[key], f"{path}.{key}")
    return found
print(unknown(json.loads(Path(sys.argv[-1]).read_text()), "V1alpha1ServingRuntime", ""))
"""
"""Prints the fields of a ServingRuntime that the classes of KServe's own package do not know."""


def test_kserve_knows_the_fields_of_the_runtime(tmp_path: Path) -> None:
    if find_spec("kserve") is None:
        pytest.skip("kserve is not there: the extra test-clients has it")
    runtime = yaml.safe_load((KUBERNETES / "serving_runtime.yaml").read_text())
    (tmp_path / "runtime.json").write_text(json.dumps(runtime))
    done = run_python("-c", KSERVE, str(tmp_path / "runtime.json"))
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_what_kserve_starts_serves_the_model_under_the_name_of_the_service(tmp_path: Path) -> None:
    runtime = yaml.safe_load((KUBERNETES / "serving_runtime.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    shutil.copytree(KUBERNETES.parents[1] / "models" / "digits" / "1", tmp_path / "models")
    places = {"/mnt/models": str(tmp_path / "models"), "--port=8080": "--port=0"}
    words = [places.get(word, word.replace("{{.Name}}", "my-digits")) for word in container["args"]]
    environment = {each["name"]: each["value"] for each in container["env"]}
    command = ["-m", "batcher.app.cli", *words]
    with started(tmp_path, command=command, environment=environment) as server:
        server.address = server.address.replace("0.0.0.0", "127.0.0.1")
        assert json.loads(server.get("/v2/models/my-digits"))["name"] == "my-digits"
        assert server.get("/readyz")
        assert len(_posted(server, "/v1/models/my-digits:predict", ONE_DIGIT)["predictions"]) == 1
