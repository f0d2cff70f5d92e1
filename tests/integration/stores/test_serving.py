"""Servers of models from stores: at start, while they watch, after a crash, without the store."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx

from batcher.serving.repository.stores.parts import MIB
from tests.end_to_end.processes import ROOT, Process, started
from tests.integration.stores.conftest import Remote
from tests.integration.stores.counterparts import SECRET, nginx

MODEL = b"""
format: python
class: net:Net
inputs: [{name: x, dtype: FP32, shape: [1]}]
outputs: [{name: y, dtype: FP32, shape: [1]}]
"""
CODE = "class Net:\n    def predict(self, inputs):\n        return {'y': inputs['x'] * %d}\n"
PERIOD_S = 0.1
LIMIT_S = 180.0
GIB = 1 << 30


def put(remote: Remote, name: str, factor: int, **files: bytes) -> None:
    """Put a version that multiplies by `factor` into the store, `model.yaml` last."""
    remote.put(f"{name}/net.py", (CODE % factor).encode())
    for file, content in files.items():
        remote.put(f"{name}/{file}", content)
    remote.put(f"{name}/model.yaml", MODEL)


def answer(server: Process, model: str) -> float:
    """Return what the model makes of 1."""
    body = {"inputs": {"x": [[1]]}}
    reply = httpx.post(f"{server.address}/models/{model}/predict", json=body, timeout=30)
    result: float = reply.json()["outputs"]["y"][0][0]
    return result


def wait_until(is_so: Callable[[], bool], server: Process) -> None:
    """Return when `is_so` is; fail after LIMIT_S with the server's log."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, server.errors
        time.sleep(0.05)


def settings(remote: Remote, folder: Path) -> tuple[str, ...]:
    """Return the arguments of a server that reads from the store into a cache in `folder`."""
    pairs = (
        f"model_repository={remote.counterpart.address}",
        f"store_cache={folder / 'cache'}",
        f"watch_repository_s={PERIOD_S}",
        "defaults.device=cpu",
        "defaults.torch_threads=1",
    )
    return tuple(part for pair in pairs for part in ("--set", pair))


def test_a_server_serves_watches_and_starts_again_without_the_store(
    remote: Remote, tmp_path: Path
) -> None:
    put(remote, "double/1", 2)
    with started(
        tmp_path, *settings(remote, tmp_path), environment=remote.counterpart.environment
    ) as server:
        assert answer(server, "double") == 2
        # A hundred looks at what has not changed.
        looks = 100
        time.sleep(looks * PERIOD_S)
        assert 'changes_total{outcome="applied"} 0' in server.get("/metrics")
        put(remote, "double/2", 5)
        wait_until(lambda: answer(server, "double") == 5, server)
        metrics = server.get("/metrics")
        assert 'changes_total{outcome="applied"} 1' in metrics
        assert 'changes_total{outcome="refused"} 0' in metrics
        remote.counterpart.process.send_signal(signal.SIGSTOP)
        try:
            assert answer(server, "double") == 5
            shown = server.errors + metrics + server.get("/")
        finally:
            remote.counterpart.process.send_signal(signal.SIGCONT)
    away = {
        name: value.replace("127.0.0.1", "127.0.0.2")
        for name, value in remote.counterpart.environment.items()
        if name != "SSL_CERT_FILE"  # a server that is not trusted is away, too
    }
    with started(tmp_path, *settings(remote, tmp_path), environment=away) as server:
        assert answer(server, "double") == 5
        shown += server.errors
    for name, value in remote.counterpart.environment.items():
        if "KEY" in name:
            assert value not in shown
    assert SECRET not in shown


def test_one_flipped_bit_is_refused_and_the_file_named(remote: Remote, tmp_path: Path) -> None:
    sums = {"net.py": (CODE % 3).encode(), "weights.bin": bytes(MIB), "model.yaml": MODEL}
    lines = "".join(f"{sha256(content).hexdigest()}  {name}\n" for name, content in sums.items())
    put(remote, "flipped/1", 3, **{"weights.bin": bytes(MIB), "SHA256SUMS": lines.encode()})
    wrong = bytearray(MIB)
    wrong[12345] ^= 4
    put(remote, "flipped/2", 3, **{"weights.bin": bytes(wrong), "SHA256SUMS": lines.encode()})
    with started(
        tmp_path, *settings(remote, tmp_path), environment=remote.counterpart.environment
    ) as server:
        assert answer(server, "flipped") == 3
        assert "flipped/2 is left out: it could not be fetched" in server.errors
        assert "weights.bin: expected the content that SHA256SUMS" in server.errors
        index = httpx.post(f"{server.address}/v2/repository/index", timeout=30).json()
        assert "2" not in [each["version"] for each in index if each["name"] == "flipped"]


LOG = "log_format sent '$request_method $body_bytes_sent'; access_log sent.log sent;"


def test_a_gigabyte_whose_fetch_is_killed_five_times_comes_almost_once(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx(folder, "limit_rate 12m;", LOG) as counterpart:
        version = folder / "www/repository/big/1"
        version.mkdir(parents=True)
        with (version / "net.bin").open("wb") as stream:
            for number in range(1024):
                stream.write(number.to_bytes(4, "big") * (MIB // 4))
        (version / "model.yaml").write_text("file: net.bin\n")
        command = [sys.executable, "-m", "batcher.app.cli", "models", "pull", counterpart.address]
        command += ["big", "--to", str(tmp_path / "models")]
        environment = counterpart.environment | {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
        for kills in range(6):
            process = subprocess.Popen(command, env=environment, cwd=tmp_path)
            while process.poll() is None and kills < 5:
                if fetched(tmp_path / "models/big") >= (kills + 1) * 170:
                    process.kill()
                time.sleep(0.01)
            process.wait(300)
            assert process.returncode == (-signal.SIGKILL if kills < 5 else 0)
        got = tmp_path / "models/big/1/net.bin"
        assert got.stat().st_size == GIB
        with got.open("rb") as mine, (version / "net.bin").open("rb") as theirs:
            assert all(mine.read(MIB) == theirs.read(MIB) for _ in range(1024))
    sent = [line.split() for line in (folder / "sent.log").read_text().splitlines()]
    total = sum(int(nbytes) for method, nbytes in sent if method == "GET")
    assert total <= 1.05 * GIB, f"{total / GIB:.4f} times the bytes"


def fetched(folder: Path) -> int:
    """Return how many parts of the large file have come."""
    notes = sorted(folder.glob(".*.notes/*"), key=lambda path: path.stat().st_size)
    return notes[-1].read_bytes().count(1) if notes else 0
