"""How Ray is asked: once for the process, on no repeated calls, and with errors that help."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from batcher.config.model_settings import ModelSettings
from batcher.config.ray_settings import RaySettings
from batcher.config.settings import share_threads
from batcher.errors import ModelLoadError
from batcher.workers.load_turns import LoadTurns
from batcher.workers.making import make_workers
from batcher.workers.process.worker import ProcessWorker
from batcher.workers.ray import connection
from batcher.workers.ray.cluster import RayCluster
from tests.support.crossing import PATIENCE, Loop
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders
from tests.workers.ray.fake_ray import AUTO, VARIABLE, FakeRay
from tests.workers.ray.fake_ray import ray as ray


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

    def kill(handle: object, no_restart: bool) -> None:
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
    assert os.environ[VARIABLE] == str(connection.HEAD_WAIT_S)
    assert os.environ[AUTO] == "0", "else Ray would start a cluster of its own"
    words = "expected auto, to which this process is connected for another model; got h:1"
    with pytest.raises(ModelLoadError, match=words):
        RayCluster(RaySettings(address="h:1")).start()


def test_a_program_that_is_connected_already_stays_connected(ray: FakeRay) -> None:
    ray.events.append(("init", "by the program"))
    RayCluster(RaySettings(address="h:1")).start()
    assert [event[0] for event in ray.events] == ["init", "options"]


def test_once_its_node_has_ended_it_connects_to_the_cluster_that_comes_after(ray: FakeRay) -> None:
    on_sigterm = signal.signal(signal.SIGTERM, lambda *_: None)
    handler = connection.handler_of(signal.SIGTERM)
    earlier = RayCluster(RaySettings()).start()
    assert connection.handler_of(signal.SIGTERM) == handler
    waits = earlier.call("wait")
    assert not earlier.is_lost()
    ray.end_node()
    assert earlier.is_lost()
    with pytest.raises(ModelLoadError, match="got none: Ray's process on this machine has ended"):
        RayCluster(RaySettings()).start()
    ray.now += connection.ENDING_S
    ray.is_away = True
    with pytest.raises(ModelLoadError, match="got none"):
        RayCluster(RaySettings()).start()
    assert not waits.done(), "nothing is given up while no other cluster is there"
    ray.is_away = False
    ray.start_node()
    later = RayCluster(RaySettings()).start()
    kinds = [event[0] for event in ray.events]
    assert kinds == ["init", "options", "shutdown", "init", "options"]
    for lost in (waits, earlier.call("run")):
        assert str(lost.exception(0)) == "its cluster was lost"
    earlier.kill()
    assert not [each for each in threading.enumerate() if each.name == "batcher-ray-kill"]
    assert later.call("run").result() == ("run",)
    assert not later.is_lost()
    assert connection.handler_of(signal.SIGTERM) == handler
    signal.signal(signal.SIGTERM, on_sigterm)


@pytest.fixture
def handler() -> Iterator[int | None]:
    """Yield the system's handler of SIGTERM, which is the server's."""
    on_sigterm = signal.signal(signal.SIGTERM, lambda *_: None)
    yield connection.handler_of(signal.SIGTERM)
    signal.signal(signal.SIGTERM, on_sigterm)


def test_a_connection_that_somebody_else_has_ended_is_lost_and_made_anew(
    ray: FakeRay, handler: int | None
) -> None:
    earlier = RayCluster(RaySettings()).start()
    waits = earlier.call("wait")
    ray.shutdown()
    assert earlier.is_lost()
    assert str(earlier.call("refuse").exception(0)) == "its cluster was lost"
    later = RayCluster(RaySettings()).start()
    assert str(waits.exception(0)) == "its cluster was lost"
    assert (earlier.is_lost(), later.is_lost()) == (True, False)
    kinds = [event[0] for event in ray.events]
    assert kinds == ["init", "options", "shutdown", "init", "options"]
    assert connection.handler_of(signal.SIGTERM) == handler


@pytest.mark.usefixtures("handler")
def test_a_connection_of_the_program_is_lost_once_the_program_has_ended_it(ray: FakeRay) -> None:
    ray.events.append(("init", "by the program"))
    earlier = RayCluster(RaySettings()).start()
    waits = earlier.call("wait")
    assert not earlier.is_lost()
    ray.shutdown()
    ray.events.append(("init", "by the program"))
    assert earlier.is_lost()
    later = RayCluster(RaySettings()).start()
    assert str(waits.exception(0)) == "its cluster was lost"
    assert later.call("run").result() == ("run",)
    kinds = [event[0] for event in ray.events]
    assert kinds == ["init", "options", "shutdown", "init", "options"]


def test_a_connection_that_somebody_else_has_made_since_is_left_alone(
    ray: FakeRay, handler: int | None
) -> None:
    earlier = RayCluster(RaySettings()).start()
    ray.shutdown()
    ray.events.append(("init", "by the program"))
    RayCluster(RaySettings()).start()
    assert earlier.is_lost()
    kinds = [event[0] for event in ray.events]
    assert kinds == ["init", "options", "shutdown", "init", "options"]
    assert connection.handler_of(signal.SIGTERM) == handler


def test_a_connection_that_was_half_made_is_ended_and_made_anew(
    ray: FakeRay, handler: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = ray.init

    def half(**arguments: object) -> None:
        monkeypatch.setattr(ray, "init", init)
        init(**arguments)
        raise AttributeError("'NoneType' object has no attribute 'address_info'")

    monkeypatch.setattr(ray, "init", half)
    with pytest.raises(ModelLoadError, match="address_info"):
        RayCluster(RaySettings()).start()
    RayCluster(RaySettings()).start()
    kinds = [event[0] for event in ray.events]
    assert kinds == ["init", "shutdown", "init", "options"]
    assert connection._current is not None
    assert not connection._current.is_foreign
    assert connection.handler_of(signal.SIGTERM) == handler


def test_once_its_node_has_ended_the_settings_may_name_another_cluster(ray: FakeRay) -> None:
    RayCluster(RaySettings()).start()
    ray.end_node()
    with pytest.raises(ModelLoadError, match=r"at h:1 .* Ray's process on this machine has ended"):
        RayCluster(RaySettings(address="h:1")).start()
    ray.now += connection.ENDING_S
    ray.start_node()
    RayCluster(RaySettings(address="h:1")).start()
    assert [event[1] for event in ray.events if event[0] == "init"] == ["auto", "h:1"]


def test_who_asks_while_ray_waits_for_its_head_has_an_error(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TURN_TIMEOUT_S", 0)
    with connection._turn, pytest.raises(ModelLoadError, match="got none within 0 s: Ray waits"):
        RayCluster(RaySettings()).start()
    RayCluster(RaySettings()).start()


def test_a_call_that_cannot_be_sent_raises_and_waits_for_nothing(ray: FakeRay) -> None:
    actor = RayCluster(RaySettings()).start()
    with pytest.raises(RuntimeError, match="the object store is full"):
        actor.call("refuse")
    assert connection._current is not None
    assert not connection._current._waiting


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

    monkeypatch.setattr(connection, "import_module", missing)
    for variable in (VARIABLE, AUTO):
        monkeypatch.setenv(variable, "1")
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
