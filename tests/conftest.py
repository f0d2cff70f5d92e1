"""What every test stands on.

No unhandled error may be logged, property tests are the same on every machine.

The modules of `compiled_modules.txt` are tested as they are installed, compiled; with
`WITHOUT_MYPYC=1` as Python.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogEvent, globalLogPublisher

ROOT = Path(__file__).parent.parent


def sources_only(folder: str) -> FileFinder:
    """Find modules of the package as Python source alone; a path hook."""
    if not Path(folder).is_relative_to(ROOT / "batcher"):
        raise ImportError(folder)
    return FileFinder(folder, (SourceFileLoader, [".py"]))


def check_compiled() -> None:
    """Refuse to test what was compiled from other sources than those that are here."""
    listed = {ROOT / name for name in (ROOT / "compiled_modules.txt").read_text().split()}
    compiled = {
        path.parent / f"{path.name.partition('.')[0]}.py": path
        for path in (ROOT / "batcher").rglob("*.so")
    }
    stale = [
        source
        for source in listed & set(compiled)
        if compiled[source].stat().st_mtime < source.stat().st_mtime
    ]
    if compiled and (stale or listed != set(compiled)):
        wrong = ", ".join(sorted(source.stem for source in stale or listed ^ set(compiled)))
        pytest.exit(
            f"what is compiled is not what is here ({wrong}): run make test, or pip install -e . "
            "again",
            2,
        )


if os.environ.get("WITHOUT_MYPYC"):
    sys.path_hooks.insert(0, sources_only)
    sys.path_importer_cache.clear()
else:
    check_compiled()

settings.register_profile(
    "batcher",
    deadline=None,  # a shared machine is slow at times; a test never fails for that
    derandomize=True,
    max_examples=25 if os.environ.get("WITHOUT_MYPYC") else 60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("batcher")


WAITING = ("tests/end_to_end/", "tests/workers/process/", "tests/chaos/")
"""Folders of tests that mostly wait for other processes, in the order in which they are begun."""

WAITING_END = 0.8
"""Share of the other files behind which no file of these folders is left: such files take long."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread files that wait evenly among files that compute, where processes share the files.

    In the order of the folders all processes would wait at the same time, and then all compute.
    """
    if not hasattr(config, "workerinput"):
        return
    files = dict.fromkeys(item.path.relative_to(ROOT).as_posix() for item in items)
    waiting = [file for folder in WAITING for file in files if file.startswith(folder)]
    computing = [file for file in files if not file.startswith(WAITING)]
    place = {file: number / len(computing) for number, file in enumerate(computing)}
    place |= {file: WAITING_END * number / len(waiting) for number, file in enumerate(waiting)}
    items.sort(key=lambda item: place[item.path.relative_to(ROOT).as_posix()])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none; PyTorch is imported for such tests alone."""
    if item.get_closest_marker("cuda") and not import_module("torch").cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="module", autouse=True)
def young_heap() -> None:
    """Look no more at what was imported before this module, and what earlier modules left.

    Every worker that ends collects garbage: seconds, in a process that has run all tests of models.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[list[LogEvent]]:
    """Fail the test if Twisted logs an unhandled error while it runs.

    A test that expects one empties the list.
    """
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_failure") is not None or event.get("isError"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    gc.collect(0)  # a failed Deferred that nobody heard of speaks when it is collected
    globalLogPublisher.removeObserver(observe)
    assert not events, [str(event.get("log_failure") or event) for event in events]
