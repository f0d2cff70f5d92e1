"""How Ray is asked: once for the process, on no repeated calls, and with errors that help."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.config.model_settings import ModelSettings
from batcher.config.ray_settings import RaySettings
from batcher.config.settings import share_threads
from batcher.errors import ModelLoadError
from batcher.workers.load_turns import LoadTurns
from batcher.workers.making import make_workers
from batcher.workers.process.worker import ProcessWorker
from batcher.workers.ray import cluster
from batcher.workers.ray.cluster import RayCluster
from tests.support.crossing import PATIENCE, Loop
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders

VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"


class FakeRay:
    """Stands for the module `ray`.

    Attributes:
        events: what was asked, in order.
        places: where it was looked whether somebody listens.
        is_away: whether there is no cluster.
        head: set while the head of the cluster is there; Ray waits for it to kill an actor.
        killed: set when an actor was killed.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.places: list[tuple[str, int]] = []
        self.is_away = False
        self.head, self.killed = Event(), Event()

    def is_initialized(self) -> bool:
        return any(event[0] == "init" for event in self.events)

    def init(self, **arguments: Any) -> None:
        self.events.append(("init", arguments["address"]))

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
    """Stands for an actor; each method answers with what it was called with."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def __getattr__(self, method: str) -> Any:
        def called(*arguments: object) -> Any:
            answer: Future[Any] = Future()
            answer.set_result((method, *arguments))
            return SimpleNamespace(future=lambda: answer)

        def options(**chosen: str) -> Any:
            self._events.append((method, chosen))
            return SimpleNamespace(remote=called)

        return SimpleNamespace(remote=called, options=options)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    modules = {"ray": fake, "ray._private.services": fake}
    monkeypatch.setattr(cluster, "import_module", modules.__getitem__)
    monkeypatch.setattr(cluster, "create_connection", fake.connect)
    monkeypatch.setattr(cluster, "_address", "")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back afterwards
    monkeypatch.delenv(VARIABLE)
    return fake


def test_an_actor_takes_what_the_settings_say_and_nothing_is_repeated(ray: FakeRay) -> None:
    wanted = RaySettings(num_cpus=2, num_gpus=0.5, resources={"a100": 1})
    actor = RayCluster(wanted).start("arguments")
    (_, address), (_, options) = ray.events
    assert address == "auto"
    assert options.pop("concurrency_groups").keys() == {"hear", "hooks"}
    assert options == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "resources": {"a100": 1.0},
        "max_restarts": 0,
        "max_task_retries": 0,
    }
    assert actor.call("run", 1).result() == ("run", 1)
    assert actor.call("hear", group="hear").result() == ("hear",)
    actor.kill()  # which waits for nothing
    ray.head.set()
    assert ray.killed.wait(PATIENCE)
    assert ray.events[2:] == [("hear", {"concurrency_group": "hear"}), ("kill", True)]


def test_an_actor_that_ray_cannot_end_any_more_is_no_uncaught_exception(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)

    def kill(handle: Any, no_restart: bool) -> None:
        assert ray.head.wait(PATIENCE)
        raise RuntimeError("the cluster is gone")

    monkeypatch.setattr(ray, "kill", kill)
    RayCluster(RaySettings()).start().kill()
    (thread,) = [each for each in threading.enumerate() if each.name == "batcher-ray-kill"]
    ray.head.set()
    thread.join(PATIENCE)
    assert uncaught == []


def test_it_connects_once_and_never_lets_ray_end_the_process(ray: FakeRay) -> None:
    for _ in range(2):
        RayCluster(RaySettings()).start()
    assert [event for event in ray.events if event[0] == "init"] == [("init", "auto")]
    assert ray.places == [("::1", 6379)] * 2
    assert os.environ[VARIABLE] == str(cluster.HEAD_WAIT_S)
    words = "expected auto, to which this process is connected for another model; got h:1"
    with pytest.raises(ModelLoadError, match=words):
        RayCluster(RaySettings(address="h:1")).start()


def test_a_program_that_is_connected_already_stays_connected(ray: FakeRay) -> None:
    ray.events.append(("init", "by the program"))
    RayCluster(RaySettings(address="h:1")).start()
    assert [event[0] for event in ray.events] == ["init", "options"]


def test_without_a_cluster_the_error_says_how_to_have_one(ray: FakeRay) -> None:
    ray.is_away = True
    with pytest.raises(ModelLoadError) as raised:
        RayCluster(RaySettings()).start()
    assert str(raised.value) == (
        "ray.address: expected a cluster of Ray that this machine is a node of, at auto (`ray "
        "start` makes it one); got none: could not find any running Ray instance"
    )
    # Ray itself would wait there for ever.
    with pytest.raises(ModelLoadError, match=r"at h:1 .* got none: nobody listens"):
        RayCluster(RaySettings(address="h:1")).start()
    assert ray.events == []


def test_no_actor_is_asked_for_while_the_head_is_away(ray: FakeRay) -> None:
    RayCluster(RaySettings(address="h:1")).start()
    ray.is_away = True
    with pytest.raises(ModelLoadError, match=r"at h:1 .* got none: nobody listens"):
        RayCluster(RaySettings(address="h:1")).start()
    assert [event[0] for event in ray.events] == ["init", "options"]


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(cluster, "import_module", missing)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(ModelLoadError, match=r"expected the extra ray .*batcher-inference\[ray\]"):
        RayCluster(RaySettings()).start()


def test_instances_on_ray_are_workers_that_take_nothing_of_this_machine(folders: Folders) -> None:
    settings = ModelSettings(worker="ray", instances=3, ray={"num_cpus": 4})
    loop, definition = Loop(), folders.define("format: pmml\nfile: net.pmml", {"net.pmml": ""})
    call, turns = loop.call_from_thread, LoadTurns(1)
    tell = lambda text: None  # noqa: E731
    workers = make_workers(definition, settings, None, tell, call, loop.clock, turns)
    assert [type(worker) for worker in workers] == [ProcessWorker] * 3
    assert settings.local_instances == 0
    assert share_threads(settings, 1).torch_threads == 4
