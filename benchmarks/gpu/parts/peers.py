"""Other servers beside this one, with the same model on the same device, as far as they are there.

FastAPI runs one row at a time, compiled by `torch.compile`; LitServe and Mosec make batches. All
run one process with the model. A server that is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.gpu.bare_loops import random_rows
from benchmarks.gpu.figures import DEVICE, DRY, SECONDS, Figures
from benchmarks.gpu.probes import ask
from benchmarks.gpu.served_models import BERT, OWN, running
from benchmarks.load import LoadOptions, LoadResult, run_load
from benchmarks.peers.running import running_peer
from benchmarks.wrk import OCTETS

CONNECTIONS = (16,) if DRY else (1, 16, 64, 256)
PEERS = {"mosec": "mosec", "litserve": "litserve", "fastapi": "fastapi"}
"""Servers, and the module without which each is left out."""

START_S = 300.0 if DRY else 50.0
"""Seconds within which a peer listens; on a dry run on processors that are busy with tests."""

TOLERANCE = 0.05
"""Of answers that were computed in 16 bits, in batches of different sizes."""


def main() -> None:
    """Ask every server over the same numbers of connections, this one first."""
    figures = Figures("peers")
    body = random_rows(BERT, 1)["ids"].tobytes()
    contexts: dict[str, AbstractContextManager[str]] = {"batcher": ours()}
    for peer, module in PEERS.items():
        if find_spec(module) is None:
            figures.leave_out(peer, "not installed")
        else:
            contexts[peer] = theirs(peer)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        # All at once: each imports PyTorch, and the first answer of FastAPI waits for a compiler.
        begun = {name: pool.submit(begin, stack, each, body) for name, each in contexts.items()}
        servers, answers = {}, {}
        for name, each in begun.items():
            if error := each.exception():
                figures.check(f"{name}: it starts and answers", False, str(error))
            else:
                servers[name], answers[name] = each.result()
        if "batcher" not in servers:
            raise SystemExit("this server itself does not answer")
        for name, found in answers.items():
            off = float(np.abs(found - answers["batcher"]).max() / np.abs(found).max())
            figures.check(f"{name}: answers as batcher does", off <= TOLERANCE, f"{off:.2g}")
        for connections in CONNECTIONS:
            rounds = {name: closed_loop(url, body, connections) for name, url in servers.items()}
            tell(figures, rounds, connections)


def begin(
    stack: ExitStack, server: AbstractContextManager[str], body: bytes
) -> tuple[str, np.ndarray]:
    """Run a server until `stack` ends; return the URL that answers, and its answer to one row."""
    url = stack.enter_context(server)
    return url, first_answer(url, body)


def tell(figures: Figures, rounds: dict[str, LoadResult], connections: int) -> None:
    """Tell requests/s and p99 of each server, and whether this one is first in both."""
    what = f"{connections} connections"
    for name, result in rounds.items():
        figures.add(f"{name}, {what}: requests/s", result.achieved_rate_200, "1/s")
        figures.add(f"{name}, {what}: p99", result.latency_200_ms.get("p99", 0.0), "ms")
    own = rounds.pop("batcher")
    if rounds:
        rate = own.achieved_rate_200 / max(each.achieved_rate_200 for each in rounds.values())
        figures.add(f"{what}: requests/s over the best peer's", rate, least=1)
        least = min(each.latency_200_ms.get("p99", float("inf")) for each in rounds.values())
        p99 = own.latency_200_ms.get("p99", float("inf"))
        figures.add(f"{what}: p99 over the best peer's", p99 / least, most=1)


@contextmanager
def ours() -> Iterator[str]:
    """Run this server; give the URL that answers."""
    with running((BERT.name,), *BERT.pairs()) as server:
        yield f"{server.http}/models/{BERT.name}/predict"


@contextmanager
def theirs(peer: str) -> Iterator[str]:
    """Run another server; give the URL that answers."""
    environment = {
        "PEER_MODELS": str(OWN),
        "PEER_INPUT": "int64",
        "PEER_DEVICE": DEVICE,
        "PEER_BATCH": str(BERT.max_batch_size),
        "PEER_HALF": "1" if "dtype" in BERT.known_settings else "",
        "PEER_COMPILE": "1" if peer == "fastapi" and not DRY else "",
    }
    spec = find_spec(PEERS[peer])
    if peer == "mosec" and spec is not None and spec.origin is not None:
        # Mosec looks for its front only where Python's own programs are: not beside a folder that
        # was put on the path, as `run.sh` does, unless that folder is the user's.
        environment["PYTHONUSERBASE"] = str(Path(spec.origin).parents[1])
    with running_peer(peer, BERT.name, START_S, **environment) as port:
        yield f"http://127.0.0.1:{port}/inference"


def first_answer(url: str, body: bytes) -> np.ndarray:
    """Return what a server answers to one row."""
    answer = ask(url, body)
    if answer.status != 200:
        raise SystemExit(f"expected 200 of {url}; got {answer.status}: {answer.body[:200]!r}")
    return np.frombuffer(answer.body, np.float32)


def closed_loop(url: str, body: bytes, connections: int) -> LoadResult:
    """Load a server over so many connections."""
    return run_load(
        LoadOptions(
            url,
            closed=True,
            connections=connections,
            body=body,
            headers=tuple(OCTETS.items()),
            duration=SECONDS / 2,
            warmup=SECONDS / 4,
        )
    )


if __name__ == "__main__":
    main()
