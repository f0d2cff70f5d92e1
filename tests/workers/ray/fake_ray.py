"""What the server uses of the module `ray`, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from signal import SIGINT, SIGTERM
from socket import AF_UNIX, socket
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.workers.ray import connection
from tests.support.crossing import PATIENCE

VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
AUTO = "RAY_ENABLE_AUTO_CONNECT"


class FakeRay:
    """Stands for the module `ray`.

    Attributes:
        events: what was asked, in order.
        places: where it was looked whether somebody listens.
        is_away: whether there is no cluster.
        node: path of the socket of the node that was started last.
        now: seconds on the clock.
        head: set while the head of the cluster is there; Ray waits for it to kill an actor.
        killed: set when an actor was killed.
    """

    def __init__(self, folder: Path) -> None:
        self.events: list[Any] = []
        self.places: list[tuple[str, int]] = []
        self.is_away = False
        self.now = 100.0
        self.head, self.killed = Event(), Event()
        self._folder = folder
        self.start_node()
        self._joined = self.node

    def start_node(self) -> None:
        self.node = str(self._folder / f"node{len(self.events)}")
        self._listener = socket(AF_UNIX)
        self._listener.bind(self.node)
        self._listener.listen()

    def end_node(self) -> None:
        self._listener.close()

    def is_initialized(self) -> bool:
        kinds = [event[0] for event in self.events if event[0] in ("init", "shutdown")]
        return kinds[-1:] == ["init"]

    def get_runtime_context(self) -> Any:
        assert self.is_initialized(), "Ray may start a cluster to answer this"
        job = len([event for event in self.events if event[0] == "init"])
        return SimpleNamespace(get_node_id=lambda: self._joined, get_job_id=lambda: f"{job:08x}")

    def init(self, **arguments: Any) -> Any:
        self.events.append(("init", arguments["address"]))
        self._joined = self.node
        connection.set_handler(SIGTERM, connection.handler_of(SIGINT))  # Ray has another one
        return SimpleNamespace(address_info={"raylet_socket_name": self.node})

    def shutdown(self) -> None:
        self.events.append(("shutdown",))
        connection.set_handler(SIGTERM, None)  # as Ray

    def canonicalize_bootstrap_address_or_die(self, address: str) -> str:
        if address == "auto" and self.is_away:
            raise ConnectionError("could not find\n\tname: x\nany running Ray instance")
        return "[::1]:6379" if address == "auto" else address

    def connect(self, place: tuple[str, int], seconds: float) -> Any:
        if self.is_away:
            raise ConnectionRefusedError("nobody listens")
        return SimpleNamespace(close=lambda: self.places.append(place))

    def remote(self, **options: Any) -> Any:
        self.events.append(("options", options))
        return lambda kind: SimpleNamespace(remote=lambda *arguments: Handle(self.events))

    def kill(self, handle: Any, no_restart: bool) -> None:
        assert self.head.wait(PATIENCE)
        self.events.append(("kill", no_restart))
        self.killed.set()


class Handle:
    """Stands for an actor; a method answers with what it was called with.

    `wait` never answers, and `refuse` cannot be called.
    """

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def __getattr__(self, method: str) -> Any:
        def called(*arguments: object) -> Any:
            answer: Future[Any] = Future()
            if method == "refuse":
                raise RuntimeError("the object store is full")
            if method != "wait":
                answer.set_result((method, *arguments))
            return SimpleNamespace(future=lambda: answer)

        def options(**chosen: str) -> Any:
            self._events.append((method, chosen))
            return SimpleNamespace(remote=called)

        return SimpleNamespace(remote=called, options=options)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRay]:
    """Yield a Ray that this process is not connected to, with a node that listens."""
    fake = FakeRay(tmp_path)
    modules = {"ray": fake, "ray._private.services": fake}
    monkeypatch.setattr(connection, "import_module", modules.__getitem__)
    monkeypatch.setattr(connection, "create_connection", fake.connect)
    monkeypatch.setattr(connection, "monotonic", lambda: fake.now)
    monkeypatch.setattr(connection, "_current", None)
    for variable in (VARIABLE, AUTO):
        monkeypatch.setenv(variable, "")  # so that it is put back afterwards
        monkeypatch.delenv(variable)
    yield fake
    fake.end_node()
