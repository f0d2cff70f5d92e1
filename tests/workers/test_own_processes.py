"""Processes that a model's code starts end with the model, and no others do."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import pytest

from batcher.config.model_file import ModelDefinition
from batcher.models.version_code import forget_plain_names
from batcher.workers import own_processes
from batcher.workers.own_processes import OwnProcesses, end_all_processes, follow_processes
from batcher.workers.own_threads import follow_threads
from tests.support.crossing import no_more_threads
from tests.support.kept_processes import KEPT, KeptProcess
from tests.support.model_folders import Folders, multiplied_by

STARTS = """
import threading
from tests.support.kept_processes import KeptProcess, start_for_all

class Model:
    def load(self, device):
        self.kept = KeptProcess("{name}: load")
        self.kept.start()
        thread = threading.Thread(target=KeptProcess("{name}: thread").start)
        thread.start()
        thread.join()
        start_for_all("{name}: library")
    def predict(self, inputs):
        KeptProcess("{name}: predict").start()
        return {{"y": inputs["x"]}}
"""
KEEPS = """
from tests.support.kept_processes import KeptProcess

class Model:
    def load(self, device):
        self.kept = KeptProcess("kept", {heeds})
        self.kept.start()
    def predict(self, inputs):
        KeptProcess("late").start()
        return {{"y": inputs["x"]}}
    def __del__(self):
        {at_end}
"""


@pytest.fixture(autouse=True)
def _followed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for limit in ("GRACE_S", "TERMINATE_S", "KILL_S"):
        monkeypatch.setattr(own_processes, limit, 0.0)
    # Instances that a test begins and never ends count for no other test.
    monkeypatch.setattr(own_processes, "_users", Counter())
    before = Thread.start, BaseProcess.start, Pool.__init__
    follow_threads()
    follow_processes()
    yield
    Thread.start, BaseProcess.start, Pool.__init__ = before  # type: ignore[misc]  # as they were
    for each in KEPT:
        each.end()
    KEPT.clear()


def begun(definition: ModelDefinition) -> OwnProcesses:
    """Return the processes of one more instance of a model."""
    processes = OwnProcesses(definition)
    processes.begin()
    return processes


def signals() -> dict[str, list[str]]:
    """Return by the name of a process what it was sent."""
    return {each.name: list(each.sent) for each in KEPT}


def test_what_a_model_has_started_ends_with_its_last_instance_and_nothing_else_does(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path)
    processes = {}
    for name in ("m", "n"):
        definition = folders.python(STARTS.format(name=name), name=name)
        processes[name] = begun(definition), begun(definition)
        multiplied_by(folders.load(definition, warmup=False))
        forget_plain_names()
    with processes["m"][0].ending():
        pass
    assert signals() == {
        f"{name}: {what}": [] for name in "mn" for what in ("load", "thread", "library", "predict")
    }
    with processes["m"][1].ending():
        pass
    assert {name for name, sent in signals().items() if sent == ["SIGTERM"]} == {
        f"m: {what}" for what in ("load", "thread", "predict")
    }
    assert sum(map(len, signals().values())) == 3


@pytest.mark.parametrize(
    ("heeds", "at_end", "sent"),
    [
        ("'SIGTERM'", "self.kept.terminate()", ["SIGTERM"]),
        ("'SIGTERM'", "pass", ["SIGTERM"]),
        ("'SIGKILL'", "pass", ["SIGTERM", "SIGKILL"]),
        ("'SIGKILL'", "self.kept.kill()", ["SIGKILL"]),
        ("'none'", "pass", ["SIGTERM", "SIGKILL"]),  # as one that waits for its device
    ],
)
def test_a_process_is_told_by_the_model_then_terminated_then_killed(
    tmp_path: Path, heeds: str, at_end: str, sent: list[str]
) -> None:
    folders = Folders(tmp_path)
    definition = folders.python(KEEPS.format(heeds=heeds, at_end=at_end))
    processes = begun(definition)
    loaded = [folders.load(definition, warmup=False)]
    forget_plain_names()
    with processes.ending():
        loaded.clear()
        gc.collect()
    assert signals() == {"kept": sent}


def test_a_model_that_has_ended_starts_no_process_until_it_is_loaded_again(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    definition = folders.python(KEEPS.format(heeds="'SIGTERM'", at_end="pass"))
    processes = begun(definition)
    left = folders.load(definition, warmup=False)
    forget_plain_names()
    with processes.ending():
        pass
    with pytest.raises(RuntimeError, match="the model has ended, and starts no more processes"):
        multiplied_by(left)
    begun(definition)
    multiplied_by(left)
    assert signals() == {"kept": ["SIGTERM"], "late": []}


def test_where_there_are_no_more_threads_processes_end_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = Folders(tmp_path)
    definition = folders.python(KEEPS.format(heeds="'SIGKILL'", at_end="pass"))
    processes = begun(definition)
    left = folders.load(definition, warmup=False)
    forget_plain_names()
    monkeypatch.setattr("threading._start_new_thread", no_more_threads)
    with processes.ending():
        del left
    assert signals() == {"kept": ["SIGTERM", "SIGKILL"]}


def test_a_process_that_a_model_has_for_itself_ends_all_that_was_started() -> None:
    for each in (KeptProcess("a"), KeptProcess("b", "SIGKILL")):
        each.start()
    end_all_processes()
    assert signals() == {"a": ["SIGTERM"], "b": ["SIGTERM", "SIGKILL"]}


def test_processes_of_no_model_are_started_and_left_alone() -> None:
    KeptProcess("the program's").start()
    with begun(ModelDefinition.__new__(ModelDefinition)).ending():
        pass
    assert signals() == {"the program's": []}
