"""`batcher serve FILE`: every kind of file is served, and the printed line with `curl` works."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import Process, run, started, until
from tests.support import single_files

pytestmark = pytest.mark.long

ANSWERS: dict[str, dict[str, Any]] = {
    "strings": {"u": ["an example"]},
    "fixed": {"y": [[0.0, 0.0, 0.0]]},
    "wide": {"y": [[[0.0] * 8] * 3]},
    "keyword": {"y": [[0.0] * 4], "sum": [0.0]},
    "annotated": {"shifted": [[0.0] * 4], "top": [0]},
    "function": {"y": [[[0.0, 0.0]] * 8]},
    "script": {"output": [[0.0] * 4]},
}
"""What each model answers to the printed line."""

START_LIMIT_S = 300.0
"""Seconds for a start that describes seven files, some in processes that import PyTorch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Process]:
    """Serve a file of each kind: one as the target, the others as the configuration says."""
    for kind in ("strings", "fixed", "wide"):
        single_files.write_onnx(folder / f"{kind}.onnx", kind)
    single_files.write_export(folder / "keyword.pt2")
    single_files.write_script(folder / "script.pt")
    for name in ("annotated", "function"):
        (folder / f"{name}.py").write_text(getattr(single_files, name.upper()))
    suffixes = {"strings": "onnx", "fixed": "onnx", "wide": "onnx", "keyword": "pt2"}
    lines = [
        f"  {name}: {{path: {name}.{suffixes.get(name, 'py')}}}"
        for name in ANSWERS
        if name != "script"
    ]
    config = folder / "config.yaml"
    config.write_text(
        "defaults: {device: cpu, max_batch_size: 4}\nmodel_repository: null\nmodels:\n"
        + "\n".join(lines)
        + "\n"
    )
    target = (str(folder / "script.pt"), "--input", "x=FP32[4]")
    command = ("-m", "batcher.app.cli", "serve", *target, "-c", str(config), "--port", "0")
    with started(folder, command=command, ready=False) as process:
        process.wait_ready(START_LIMIT_S)
        until(lambda: "Ctrl-C" in "\n".join(process.lines))
        yield process


def test_all_are_served_and_the_screen_says_what_was_understood(server: Process) -> None:
    text = "\n".join(server.lines)
    assert "model strings, an ONNX graph" in text
    assert "  takes x FP32[3,-1]\n" in text
    assert "model annotated, torch.nn.Module Model of annotated.py" in text
    assert "  inputs: from annotations\n  outputs: as the model gave them" in text
    assert f"The page: {server.address}/   its routes: {server.address}/docs" in text


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("name", ANSWERS)
def test_the_line_with_curl_works_as_it_stands(server: Process, name: str) -> None:
    lines = [line for line in server.lines if re.search(rf"curl .*/models/{name}/predict", line)]
    assert len(lines) == 1
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", lines[0]], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["outputs"] == ANSWERS[name]


def test_a_reload_describes_a_file_that_has_changed(server: Process, folder: Path) -> None:
    before = json.loads(server.get("/v2/models/fixed"))
    assert before["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    single_files.write_onnx(folder / "fixed.onnx", "strings")
    server.signal(signal.SIGHUP)
    until(lambda: '"name":"t"' in server.get("/v2/models/fixed"))
    until(lambda: "model fixed/1 replaced\n" in server.errors)  # and no other


def test_a_file_that_holds_no_model_ends_the_start_with_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("no graph")
    (tmp_path / "script.pt").touch()
    done = run("serve", str(tmp_path / "net.onnx"), "--port", "0")
    assert done.returncode == 1
    assert "expected an ONNX graph, as torch.onnx.export writes one" in done.stderr
    for name, words in (("script.pt", "expected an archive"), ("net.onx", "did you mean net.onnx")):
        done = run("serve", str(tmp_path / name), "--port", "0")
        assert done.returncode == 1
        assert words in done.stderr
