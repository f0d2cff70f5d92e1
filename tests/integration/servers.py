"""Servers behind a balancer: each on a port that its successor takes over."""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.end_to_end.processes import Process, started, write_model
from tests.integration.balancers import AGENT_WITHIN_S, free_port

EXIT_LIMIT_S = 20.0

DOUBLES = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


def serving(
    folder: Path, port: int, *settings: str, source: str = DOUBLES
) -> AbstractContextManager[Process]:
    """Run a server of a model that doubles on `port`, with `settings`, each `KEY=VALUE`.

    `source` is the model, unless `folder` has one already.
    """
    if not (folder / "models").exists():
        write_model(folder / "models", "doubles", source)
    pairs = (f"model_repository={folder / 'models'}", "defaults.torch_threads=1", *settings)
    command = ("serve.py", "--port", str(port))
    return started(folder, *(part for pair in pairs for part in ("--set", pair)), command=command)


SLOW_ON_DEMAND = """
import time
from pathlib import Path

SLOW = Path(__file__).with_name("slow")


class Model:
    def predict(self, inputs):
        time.sleep(0.2 if SLOW.exists() else 0.02)
        return {"y": inputs["x"] * 2}
"""


class ThreeServers:
    """Three servers, each in a folder of its own, that tell HAProxy their weights.

    Attributes:
        ports: of the servers.
        agents: from each of these ports to that on which the server tells its weight.
        running: the servers.
    """

    def __init__(self, folder: Path, stack: ExitStack, *settings: str) -> None:
        """Start all of them with `settings`, each `KEY=VALUE`; `stack` ends them."""
        self._folder, self._stack, self._settings = folder, stack, settings
        self.ports = [free_port() for _ in range(3)]
        self.agents = {port: free_port() for port in self.ports}
        self.running = [self._start(port) for port in self.ports]

    def _start(self, port: int) -> Process:
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        own = (f"agent_check_port={self.agents[port]}", f"pre_stop_s={AGENT_WITHIN_S}")
        settings = (*own, *self._settings)
        return self._stack.enter_context(serving(folder, port, *settings, source=SLOW_ON_DEMAND))

    def slow(self, place: int) -> Path:
        """Return the file whose presence makes a server ten times as slow."""
        return self._folder / str(self.ports[place]) / "models" / "doubles" / "1" / "slow"

    def replace(self, place: int) -> None:
        """Have a server leave, and start another one in its place."""
        self.running[place].signal(signal.SIGTERM)
        assert self.running[place].wait(EXIT_LIMIT_S) == 0
        self.start(place)

    def start(self, place: int) -> None:
        """Start a server where one has ended."""
        self.running[place] = self._start(self.ports[place])

    def share(self, place: int, seconds: float) -> float:
        """Return which part of all rows one server answers in the next `seconds`."""
        before = self._rows()
        time.sleep(seconds)
        came = [after - then for then, after in zip(before, self._rows(), strict=True)]
        return came[place] / sum(came)

    def _rows(self) -> list[float]:
        return [each.metric("batcher_batch_size_sum") for each in self.running]
