"""Threads that a model's code starts find the model's modules, whatever runs on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from batcher.models.checked import CheckedModel
from batcher.models.version_code import forget_plain_names
from batcher.workers.own_threads import follow_threads
from tests.support.model_folders import Folders, multiplied_by, pickled_elsewhere

SOURCE = """
import gc, pickle, threading, weakref
from concurrent.futures import ThreadPoolExecutor

def pooled(data):
    with ThreadPoolExecutor(2) as pool:
        return sum(each.factor() for each in pool.map(pickle.loads, [data] * 3))

class Model:
    def load(self, device):
        self.factor = {at_load}

    def predict(self, inputs):
        return {{"y": inputs["x"] * {in_predict}}}
"""
HELPER = "class Extractor:\n    def factor(self):\n        return {factor}\n"
KINDS_OF_THREADS = """
class Own(threading.Thread):
    def run(self):
        FOUND.append(100)

FOUND = []

def started():
    given = threading.Thread()
    given.run = lambda: FOUND.append(10)
    threads = [Own(), threading.Thread(target=FOUND.append, args=[1]), given]
    for each in threads:
        each.start()
        each.join()
    gone = [weakref.ref(each) for each in threads[:2]]
    gc.disable()
    del each, threads
    FOUND.append(1000 * sum(each() is None for each in gone))
    gc.enable()
    return sum(FOUND)
"""


@pytest.fixture(autouse=True)
def _followed() -> Iterator[None]:
    before = Thread.start
    follow_threads()
    yield
    Thread.start = before  # type: ignore[method-assign]  # as it was


def loaded(folders: Folders, name: str, factor: int, source: str) -> CheckedModel:
    """Load a model as a server does, with a file of `factor` beside it."""
    files: dict[str, str | bytes] = {"features.py": HELPER.format(factor=factor)}
    checked = folders.load(folders.python(source, files=files, name=name), warmup=False)
    forget_plain_names()
    return checked


@pytest.mark.parametrize("when", ["at load", "in predict"])
def test_a_pool_that_a_model_makes_finds_its_modules_for_calls_of_libraries(
    tmp_path: Path, when: str
) -> None:
    call = f"pooled({pickled_elsewhere()!r})"
    at_load, in_predict = (call, "self.factor") if when == "at load" else ("None", call)
    source = SOURCE.format(at_load=at_load, in_predict=in_predict)
    folders = Folders(tmp_path)
    models = [loaded(folders, name, factor, source) for factor, name in ((2, "m"), (3, "n"))]
    assert [multiplied_by(each) for each in models * 2] == [6, 9, 6, 9]


def test_a_thread_runs_what_it_would_run_and_nothing_holds_the_thread(tmp_path: Path) -> None:
    source = KINDS_OF_THREADS + SOURCE.format(at_load="None", in_predict="started()")
    source = source.replace("class Own", "import threading\n\nclass Own", 1)
    assert multiplied_by(loaded(Folders(tmp_path), "m", 2, source)) == 2111
