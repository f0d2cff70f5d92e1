"""Retrain and swap, end to end: a good version is promoted, a bad one is taken back.

    python examples/retrain/run.py

Three programs take part. `train.py` learns from the scans there are and puts a version into a
repository. The server watches the repository, tries what comes on 5 % of the requests, and decides.
This script is the clients, who notice nothing, and says what happens.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MOST_REQUESTS = 20_000  # for one decision; a thousand are the usual


class Clients:
    """Many users, one request after the other, over one connection.

    Attributes:
        failed: requests that failed.
        answered: requests by the version that answered.
    """

    def __init__(self, address: str) -> None:
        """Ask the server at `address`."""
        self.failed = 0
        self.answered: dict[str, int] = {}
        self._connection = http.client.HTTPConnection(address, timeout=30)
        with np.load(HERE.parent / "digits" / "heldout.npz") as found:
            self._scans = [scan.astype("<f4").tobytes() for scan in found["images"]]
        self._number = count()

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
        """Return status, version and body of the answer."""
        self._connection.request("POST" if body else "GET", path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.getheader("X-Model-Version", ""), answer.read()

    def ask(self) -> None:
        """Send the scan of the next user."""
        number = next(self._number)
        scan = self._scans[number % len(self._scans)]
        kind = {"Content-Type": "application/octet-stream", "X-Route-Key": f"user {number}"}
        status, version, _ = self.get("/models/digits/predict", scan, **kind)
        self.failed += status != 200
        self.answered[version] = self.answered.get(version, 0) + 1

    def status(self) -> dict[str, Any]:
        """Return where the trial is."""
        found: dict[str, Any] = json.loads(self.get("/models/digits/rollout")[2])
        return found

    def until_decided(self, candidate: str) -> dict[str, Any]:
        """Ask until the trial of the version `candidate` has ended; return how."""
        for number in range(MOST_REQUESTS):
            self.ask()
            if number % 20 == 0:
                status = self.status()
                ended = status["outcome"] in ("promoted", "rolled_back")
                if ended and status["candidate"] == candidate:
                    return status
        raise SystemExit(f"no decision about version {candidate}: {self.status()}")


def train(repository: Path, *arguments: str) -> None:
    """Run the training to its end."""
    command = [sys.executable, str(HERE / "train.py"), str(repository), *arguments]
    subprocess.run(command, check=True)


def tell(clients: Clients, status: dict[str, Any]) -> None:
    """Say what was decided."""
    outcome = status["outcome"].replace("_", " ")
    print(f"version {status['candidate']} is {outcome}: {status['reason']}")
    print(f"answered so far by version: {clients.answered}; failed: {clients.failed}", flush=True)


def main() -> None:
    """Tell the whole story."""
    with TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        train(repository, "--scans", "120")
        settings = [f"model_repository={repository}", f"state_folder={folder}/state"]
        overrides = [part for each in settings for part in ("--set", each)]
        command = ["-m", "batcher.app.cli", "serve", "-c", str(HERE / "config.yaml"), *overrides]
        server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        try:
            story(server, repository)
        finally:
            server.terminate()
            server.wait()


def story(server: subprocess.Popen[str], repository: Path) -> None:
    """Have a good version promoted, and a bad one taken back."""
    assert server.stdout is not None
    lines = iter(server.stdout.readline, "")
    address = next(found[1] for line in lines if (found := re.search(r"http://([^\s/]+)", line)))
    clients = Clients(address)
    clients.ask()
    train(repository, "--scans", "360")
    tell(clients, clients.until_decided("2"))
    train(repository, "--scans", "360", "--bug")
    tell(clients, clients.until_decided("3"))
    before = clients.failed
    for _ in range(200):
        clients.ask()
    print(f"of 200 requests afterwards {clients.failed - before} failed")


if __name__ == "__main__":
    main()
