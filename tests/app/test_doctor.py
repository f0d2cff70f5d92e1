"""`batcher doctor`: facts, what they mean, and an exit status."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batcher.app import doctor
from batcher.app.cli import main
from batcher.batching import scheduler
from batcher.config.settings import ServerSettings
from batcher.core.cores import memory_limit


def found(settings: ServerSettings) -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in doctor.examine(settings)}


def test_it_looks_at_all_that_a_server_needs() -> None:
    findings = found(ServerSettings(port=0))
    assert set(findings) >= {
        "python",
        "torch",
        "cuda",
        "compiler",
        "hot path",
        "extra onnx",
        "extra grpc",
        "extra parquet",
        "cores",
        "memory",
        "open files",
        "shared memory",
    }
    assert all(finding.level in ("ok", "note", "problem") for finding in findings.values())
    assert all(each.meaning for each in findings.values() if each.level != "ok")


def test_an_extra_that_is_missing_is_a_problem_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda module: None)
    assert found(ServerSettings(port=0))["extra grpc"].level == "note"
    needed = found(ServerSettings(port=0, grpc_port=1))["extra grpc"]
    assert needed.level == "problem"
    assert "pip install 'batcher-inference[grpc]'" in needed.meaning
    assert "pip install -e '.[grpc]' -c constraints.txt" in needed.meaning


@pytest.mark.parametrize(
    ("places", "level"),
    [
        ({"model_repository": "https://example.com/models"}, "note"),
        ({"model_repository": ["models", "s3://bucket"]}, "problem"),
        ({"models": {"m": {"path": "gs://bucket/m"}}}, "problem"),
    ],
)
def test_obstore_is_a_problem_where_models_lie_in_a_bucket(
    places: dict[str, Any], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda module: None)
    assert found(ServerSettings(port=0, **places))["extra stores"].level == level


def test_onnxruntime_is_a_problem_where_a_model_of_the_repository_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda module: None)
    for number, files in enumerate((("model.py",), ("model.py", "net.onnx"))):
        folder = tmp_path / str(number) / "m" / "1"
        folder.mkdir(parents=True)
        for name in ("model.yaml", *files):
            (folder / name).touch()
    levels = []
    for number in range(2):
        settings = ServerSettings(port=0, model_repository=str(number))
        findings = {each.subject: each for each in doctor.examine(settings, tmp_path)}
        levels.append(findings["extra onnx"].level)
    assert levels == ["note", "problem"]
    assert "needed by model m: `pip install" in findings["extra onnx"].meaning


def test_few_open_files_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    finding = found(ServerSettings(port=0))["open files"]
    assert (finding.level, finding.found) == ("note", "256 at most")
    assert "ulimit" in finding.meaning


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libcudart.so: cannot open")

    monkeypatch.setattr(doctor, "import_module", broken)
    finding = found(ServerSettings(port=0))["torch"]
    assert (finding.level, "libcudart" in finding.found) == ("problem", True)


@pytest.mark.parametrize(
    ("compiler", "headers", "expected"),
    [
        (True, True, "install the package again, which compiles it"),
        (False, True, "install the package again with a C compiler"),
        (True, False, "install the package again with Python's headers"),
        (False, False, "a C compiler and Python's headers"),
    ],
)
def test_a_slow_hot_path_is_told_with_what_its_compilation_lacks(
    compiler: bool,
    headers: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if headers:
        (tmp_path / "Python.h").touch()
    monkeypatch.setattr(scheduler, "__file__", "scheduler.py")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/c++" if compiler else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    finding = found(ServerSettings(port=0))["hot path"]
    assert finding.level == "note"
    assert expected in finding.meaning


def test_a_port_that_is_taken_ends_with_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    run = CliRunner().invoke
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(main, ["doctor", "--json", "--set", f"port={port}"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["ok"]) == (1, False)
    (problem,) = [each for each in document["findings"] if each["level"] == "problem"]
    assert problem["subject"] == "port"
    assert "in use" in problem["found"].lower()


def test_a_name_that_cannot_be_a_host_is_a_problem_that_says_so() -> None:
    problem = found(ServerSettings(port=1, host="a..b"))["port"]
    assert problem.level == "problem"
    assert "labels of 1 to 63 characters" in problem.found
    assert problem.meaning.startswith("set host to")


def test_an_empty_host_is_all_addresses_as_for_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert found(ServerSettings(port=port, host=""))["port"].level == "problem"
    assert found(ServerSettings(port=port, host=""))["port"].level == "ok"


def test_without_a_problem_the_status_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    done = CliRunner().invoke(main, ["doctor", "--set", "port=0"])
    assert done.exit_code == 0
    assert "python" in done.stdout


def test_a_wrong_configuration_is_a_problem_beside_the_others(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("port: many\n")
    done = CliRunner().invoke(main, ["doctor", "-c", str(config)])
    assert done.exit_code == 1
    assert "config.yaml:1: port: expected" in done.stdout
    assert "torch" in done.stdout


@pytest.mark.parametrize(
    ("kind", "group", "file", "text", "limit"),
    [
        ("cgroup2 cgroup2 rw", "0::/", "memory.max", "1048576", 1 << 20),
        ("cgroup2 cgroup2 rw", "0::/", "memory.max", "max", None),
        ("cgroup cgroup rw,memory", "5:memory:/", "memory.limit_in_bytes", "4096", 4096),
        ("cgroup cgroup rw,memory", "5:memory:/", "memory.limit_in_bytes", str(1 << 63), None),
    ],
)
def test_the_limit_of_memory_is_that_of_the_control_group(
    tmp_path: Path, kind: str, group: str, file: str, text: str, limit: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{group}\n")
    (tmp_path / "proc/self/mountinfo").write_text(f"30 20 0:1 / /sys/fs/cgroup rw - {kind}\n")
    (tmp_path / "sys/fs/cgroup" / file).write_text(f"{text}\n")
    assert memory_limit(tmp_path) == limit
