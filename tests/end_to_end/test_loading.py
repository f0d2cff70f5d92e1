"""Loads in a real server: side by side, of files that changed, and of models with processes."""

from __future__ import annotations

import json
import os
import py_compile
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from safetensors.torch import save_file

from tests.end_to_end.processes import Process, started, until, write_model

TENSORS = (
    "inputs: [{name: x, dtype: FP32, shape: [4]}]\noutputs: [{name: y, dtype: FP32, shape: [4]}]\n"
)
FIXED = 10**18
"""A time of change, in nanoseconds, that tells nothing."""

BUILDS = """
import time, torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4, bias=False)
        time.sleep(0.05)
        self.second = torch.nn.Linear(4, 4, bias=False)
        assert self.second.weight.dtype == torch.float32
        for layer in (self.first, self.second):
            torch.nn.init.eye_(layer.weight)
    def forward(self, x):
        return self.second(self.first(x))
"""
CHANGES_ALL = """
import random, time, numpy, torch

class Model:
    def load(self, device):
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        time.sleep(0.05)
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""
EXPORTS = """
import torch

class Model:
    def load(self, device):
        program = torch.export.export(torch.nn.ReLU(), (torch.ones(2, 4),))
        self.module = program.module()
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""
POOL = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import numpy as np
from factors import FACTOR

def times(row):
    return [value * FACTOR for value in row]

class Model:
    def load(self, device):
        self.pool = ProcessPoolExecutor(1, mp_context=get_context({method!r}))
    def predict(self, inputs):
        rows = self.pool.map(times, inputs["x"].tolist(), timeout=60)
        return {{"y": np.array([*rows], "f4")}}
"""


def ask(server: Process, model: str, value: float = 1.0) -> float:
    """Return the first number of a model's answer."""
    body = json.dumps({"inputs": {"x": [[value] * 4]}}).encode()
    target = f"{server.address}/models/{model}/predict"
    with urlopen(Request(target, body, {"Content-Type": "application/json"}), timeout=60) as answer:
        return float(json.loads(answer.read())["outputs"]["y"][0][0])


def descendants(pid: int) -> set[int]:
    """Return the processes below a process."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has just ended
            for child in children.read_text().split():
                found |= {int(child)} | descendants(int(child))
    return found


def make_models(repository: Path, kind: str, count: int) -> None:
    """Write `count` models of one kind, all of which answer with their inputs."""
    for number in range(count):
        name = f"m{number}"
        if kind == "python":
            sources = (BUILDS, CHANGES_ALL, EXPORTS)
            write_model(repository, name, sources[number % len(sources)])
            continue
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(f"format: {kind}\nfile: model\n{TENSORS}")
        if kind == "export":
            rows = torch.export.Dim("rows")
            inputs = (torch.ones(2, 4),)
            program = torch.export.export(torch.nn.Identity(), inputs, dynamic_shapes=({0: rows},))
            torch.export.save(program, folder / "model.pt2")
            (folder / "model.pt2").rename(folder / "model")
        else:
            torch.jit.script(torch.nn.Identity()).save(str(folder / "model"))


@pytest.mark.parametrize("kind", ["python", "export", "torchscript"])
@pytest.mark.parametrize(
    ("models", "instances"), [(4, 1), (1, 4), pytest.param(3, 2, marks=pytest.mark.long)]
)
def test_models_and_instances_start_together(
    tmp_path: Path, kind: str, models: int, instances: int
) -> None:
    make_models(tmp_path / "models", kind, models)
    (tmp_path / "config.yaml").write_text(f"defaults: {{instances: {instances}}}\n")
    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        assert [ask(server, f"m{number}", 3) for number in range(models)] == [3] * models


def version(folder: Path, factor: int) -> None:
    """Write a version that multiplies by `factor`, in its code and in its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(
        f"format: python\nclass: code:Model\nweights: w.safetensors\n{TENSORS}"
    )
    (folder / "code.py").write_text(
        "import torch\nfrom factors import FACTOR\n\nclass Model(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.f = torch.nn.Parameter(torch.zeros(1))\n"
        "    def forward(self, x):\n        return x * self.f * FACTOR\n"
    )
    (folder / "factors.py").write_text(f"FACTOR = {factor}\n")
    save_file({"f": torch.tensor([1.0])}, str(folder / "w.safetensors"))
    for file in folder.iterdir():
        os.utime(file, ns=(FIXED, FIXED))


def code_of_the_same_size(folder: Path, factor: int) -> None:
    """Write other code of the same size and time in place, beside bytecode of the code before."""
    code = folder / "factors.py"
    py_compile.compile(str(code))
    code.write_text(f"FACTOR = {factor}\n")
    os.utime(code, ns=(FIXED, FIXED))


def weights_of(folder: Path, factor: int) -> bytes:
    """Return weights that give `factor`, whatever the code multiplies by."""
    by_code = int((folder / "factors.py").read_text().split()[-1])
    other = folder.parent / "other.safetensors"
    save_file({"f": torch.tensor([factor / by_code])}, str(other))
    return other.read_bytes()


def weights_in_place(folder: Path, factor: int) -> None:
    """Write other weights into the file, and set its time back."""
    (folder / "w.safetensors").write_bytes(weights_of(folder, factor))
    os.utime(folder / "w.safetensors", ns=(FIXED, FIXED))


def weights_renamed(folder: Path, factor: int) -> None:
    """Put another file of weights, of the same size and time, in the place of the first."""
    new = folder / "new"
    new.write_bytes(weights_of(folder, factor))
    os.utime(new, ns=(FIXED, FIXED))
    os.replace(new, folder / "w.safetensors")


def link_turned(folder: Path, factor: int) -> None:
    """Have the version's folder be a link that leads to another folder."""
    target = folder.parents[2] / f"elsewhere{factor}"
    version(target, factor)
    new = folder.with_name("new")
    new.symlink_to(target)
    if not folder.is_symlink():
        folder.rename(folder.parents[2] / "before")
    os.replace(new, folder)


@pytest.mark.parametrize(
    ("change", "worker", "factors"),
    [
        (code_of_the_same_size, "thread", (3, 5, 7)),
        (weights_in_place, "thread", (3, 5, 7)),
        (weights_renamed, "thread", (3, 5, 7)),
        (link_turned, "thread", (3, 5, 7)),
        # What has changed is found in the server; a child need only read files and run code again,
        # once: each reload starts two interpreters, the child's and its spare's.
        (code_of_the_same_size, "process", (3,)),
        pytest.param(weights_in_place, "process", (3, 5, 7), marks=pytest.mark.long),
    ],
)
def test_the_next_answer_after_a_reload_is_the_new_one(
    tmp_path: Path, change: Callable[[Path, int], None], worker: str, factors: Sequence[int]
) -> None:
    folder = tmp_path / "models" / "m" / "1"
    version(folder, 2)
    (tmp_path / "config.yaml").write_text(f"defaults: {{worker: {worker}}}\n")
    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        assert ask(server, "m") == 2
        for reloads, factor in enumerate(factors, 1):
            change(folder, factor)
            server.signal(signal.SIGHUP)
            until(partial(reloaded, server, reloads), 60)
            assert ask(server, "m") == factor


def reloaded(server: Process, times: int) -> bool:
    """Return whether the server has ended that many reloads."""
    return server.metric("batcher_reloads_total") == times


def test_what_has_not_changed_is_not_loaded_again(tmp_path: Path) -> None:
    version(tmp_path / "models" / "m" / "1", 2)
    (tmp_path / "config.yaml").write_text("defaults: {warmup: false}\n")
    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        server.signal(signal.SIGHUP)
        until(lambda: "nothing has changed" in server.errors, 60)


@pytest.mark.parametrize("worker", ["thread", "process"])
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_model_s_pool_of_processes_finds_the_model_s_code_and_ends_with_the_server(
    tmp_path: Path, method: str, worker: str
) -> None:
    write_model(tmp_path / "models", "m", POOL.format(method=method))
    (tmp_path / "models" / "m" / "1" / "factors.py").write_text("FACTOR = 3\n")
    (tmp_path / "config.yaml").write_text(f"defaults: {{worker: {worker}}}\n")
    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        assert ask(server, "m", 2) == 6
        below = descendants(server.pid)
        assert below
        server.signal(signal.SIGTERM)
        assert server.wait(30) == 0
        until(lambda: not [pid for pid in below if Path(f"/proc/{pid}/exe").exists()], 60)


THREADS = """
import os, torch
class Model:
    def predict(self, inputs):
        threads = {int(os.environ["OMP_NUM_THREADS"]), torch.get_num_threads()}
        return {"y": inputs["x"] * threads.pop() if len(threads) == 1 else None}
"""


def test_libraries_in_a_child_have_as_many_threads_as_pytorch(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "m", THREADS)
    (tmp_path / "config.yaml").write_text("defaults: {worker: process, torch_threads: 3}\n")
    own = {"OMP_NUM_THREADS": "3"} if "OMP_NUM_THREADS" in os.environ else None
    with started(tmp_path, "-c", str(tmp_path / "config.yaml"), environment=own) as server:
        assert ask(server, "m") == 3


def test_a_pool_ends_when_its_model_is_unloaded(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "m", POOL.format(method="spawn"))
    (tmp_path / "models" / "m" / "1" / "factors.py").write_text("FACTOR = 3\n")
    (tmp_path / "config.yaml").write_text("model_control: explicit\n")

    def workers() -> list[int]:
        lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(server.pid)}
        return [pid for pid, line in lines.items() if b"spawn_main" in line.read_bytes()]

    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        assert ask(server, "m", 2) == 6
        assert workers()
        urlopen(Request(f"{server.address}/v2/repository/models/m/unload", b"{}")).close()
        until(lambda: not workers())


CHILDREN = """
import time
from multiprocessing import get_context
class Model:
    def load(self, device):
        context = get_context({method!r})
        self.process = context.Process(target=time.sleep, args=(600,))
        self.process.start()
        self.pool = context.Pool(1)
        self.answers = self.pool.map_async(time.sleep, [600])
        {last}
    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""


def test_processes_end_with_their_model_and_with_a_load_that_fails(tmp_path: Path) -> None:
    for name, method, last in (
        ("stays", "fork", "pass"),
        ("goes", "spawn", "pass"),
        ("fails", "spawn", "raise ValueError"),
    ):
        write_model(tmp_path / "models", name, CHILDREN.format(method=method, last=last))
    (tmp_path / "config.yaml").write_text("model_control: explicit\nload_at_start: [stays]\n")

    def post(model: str, action: str) -> None:
        urlopen(Request(f"{server.address}/v2/repository/models/{model}/{action}", b"{}")).close()

    def workers() -> set[int]:
        return {pid for pid in descendants(server.pid) if not is_tracker(pid)}

    def is_tracker(pid: int) -> bool:
        try:
            return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it has just ended
            return False

    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        before = workers()
        assert len(before) >= 2
        with pytest.raises(HTTPError):
            post("fails", "load")
        post("goes", "load")
        assert workers() > before
        post("goes", "unload")
        until(lambda: workers() == before)


FORKS = """
import time
from multiprocessing import get_context
class Model:
    def load(self, device):
        for told in (True, False):
            process = get_context("fork").Process(target=time.sleep, args=(600,))
            process.start()
            if told:
                process.terminate()
                process.join()
        raise ValueError
"""


@pytest.mark.parametrize("worker", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_a_process_that_a_model_has_forked_ends_when_it_is_told_to(
    tmp_path: Path, worker: str
) -> None:
    write_model(tmp_path / "models", "m", FORKS)
    (tmp_path / "config.yaml").write_text(
        f"model_control: explicit\nload_at_start: []\ndefaults: {{worker: {worker}}}\n"
    )
    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        before = descendants(server.pid)
        with pytest.raises(HTTPError, match="503"):
            urlopen(Request(f"{server.address}/v2/repository/models/m/load", b"{}"), timeout=60)
        until(lambda: "ValueError" in server.errors)
        until(lambda: descendants(server.pid) == before)


OPERATORS = """
import sys, torch
class Model(torch.nn.Module):
    def forward(self, x):
        return x * 0 + sys.getswitchinterval() * 1e3
"""


def test_the_switch_interval_follows_models_that_clients_load_and_unload(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "m", OPERATORS)
    (tmp_path / "config.yaml").write_text("model_control: explicit\nload_at_start: []\n")
    with started(tmp_path, "-c", str(tmp_path / "config.yaml")) as server:
        for _ in range(2):
            for action in ("load", "unload"):
                target = f"{server.address}/v2/repository/models/m/{action}"
                urlopen(Request(target, b"{}"), timeout=60).close()
                if action == "load":
                    assert ask(server, "m") == pytest.approx(0.2, abs=0.01)
