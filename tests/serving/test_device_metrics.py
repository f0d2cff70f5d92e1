"""Metrics of GPUs: read beside the loop, absent where there is nothing to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from batcher.serving import device_metrics
from batcher.serving.device_metrics import FORGET_S, READ_EVERY_S, DeviceMetrics
from batcher.serving.nvml import Nvml
from batcher.workers.pool import CpuPool
from tests.support.fake_nvml import GIB, FakeNvml
from tests.support.fake_nvml import nvml as nvml
from tests.support.serving import Serving

Samples = dict[str, dict[str, float]]


class Bench:
    """Devices that are watched, and readings that wait to be made.

    Attributes:
        waiting: functions that the thread has to run, each with what hears of the result.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.devices = DeviceMetrics()

    def note(self, now: float) -> None:
        """Let the time be `now`."""
        self.devices.note(now, self)

    def run(self, nbytes: int, deadline: float, function: Callable[[], Any]) -> Deferred[Any]:
        """Take `function`, as a pool does."""
        deferred: Deferred[Any] = Deferred()
        self.waiting.append((function, deferred))
        return deferred

    def read(self) -> None:
        """Do what the thread has to do."""
        function, deferred = self.waiting.pop()
        try:
            result = function()
        except Exception as err:
            deferred.errback(err)
        else:
            deferred.callback(result)

    def samples(self) -> Samples:
        """Return what a scrape would show, by family and device."""
        return {
            family.name.removeprefix("batcher_device_"): {
                sample.labels["device"]: sample.value for sample in family.samples
            }
            for family in self.devices.collect()
        }


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    """What is logged meanwhile."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


NOTHING: Samples = {"memory_used_bytes": {}, "memory_total_bytes": {}, "utilization_ratio": {}}
BOTH: Samples = {
    "memory_used_bytes": {"0": 6 * GIB, "1": 12 * GIB},
    "memory_total_bytes": {"0": 24 * GIB, "1": 24 * GIB},
    "utilization_ratio": {"0": 1.0, "1": 0.25},
}


def test_devices_are_read_on_a_thread_and_shown_at_the_next_scrape(nvml: FakeNvml) -> None:
    bench = Bench()
    assert bench.samples() == NOTHING
    bench.note(0.0)
    assert bench.samples() == NOTHING, "the loop has not waited"
    bench.read()
    assert bench.samples() == BOTH
    labels = next(iter(bench.devices.collect())).samples[1].labels
    assert labels == {"device": "1", "name": "Fake", "uuid": "GPU-1"}


def test_the_next_reading_comes_some_seconds_later_and_one_at_a_time(nvml: FakeNvml) -> None:
    bench = Bench()
    bench.note(0.0)
    bench.read()
    bench.note(READ_EVERY_S - 0.1)
    assert bench.waiting == []
    bench.note(READ_EVERY_S)
    bench.note(3 * READ_EVERY_S)
    assert len(bench.waiting) == 1
    nvml.used[0] = 7
    bench.read()
    assert bench.samples()["memory_used_bytes"]["0"] == 7 * GIB


def test_readings_of_a_driver_that_hangs_are_forgotten_until_it_answers(nvml: FakeNvml) -> None:
    bench = Bench()
    bench.note(0.0)
    bench.read()
    bench.note(READ_EVERY_S)
    bench.note(2 * READ_EVERY_S + FORGET_S - 0.1)
    assert bench.samples() == BOTH
    bench.note(2 * READ_EVERY_S + FORGET_S)
    assert bench.samples() == NOTHING
    bench.read()
    assert bench.samples() == BOTH


def test_a_device_that_is_lost_is_absent_and_one_that_tells_no_use_has_memory_alone(
    nvml: FakeNvml,
) -> None:
    nvml.used.append(1)
    nvml.busy.append(None)
    nvml.used[0] = None
    bench = Bench()
    bench.note(0.0)
    bench.read()
    assert bench.samples()["memory_used_bytes"].keys() == {"1", "2"}
    assert bench.samples()["utilization_ratio"] == {"1": 0.25}


def test_an_old_driver_counts_what_it_keeps_for_itself(nvml: FakeNvml) -> None:
    nvml.is_old = True
    first, second = Nvml().read()
    assert (first.used_bytes, second.used_bytes) == (6.5 * GIB, 12.5 * GIB)


def test_without_a_driver_the_log_says_so_once(nvml: FakeNvml, log: list[LogEvent]) -> None:
    nvml.missing = "NVML Shared Library Not Found"
    bench = Bench()
    bench.note(0.0)
    bench.read()
    bench.note(100.0)
    assert bench.waiting == []
    assert bench.samples() == NOTHING
    assert [formatEvent(event) for event in log] == [
        "no metrics of GPUs: expected NVIDIA's driver, since nvidia-ml-py is installed; got: NVML "
        "Shared Library Not Found"
    ]


def test_without_the_extra_nothing_is_read_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, log: list[LogEvent]
) -> None:
    monkeypatch.setattr(device_metrics, "find_spec", lambda name: None)
    bench = Bench()
    bench.note(0.0)
    assert bench.waiting == []
    assert bench.samples() == NOTHING
    assert log == []


def test_the_end_of_the_server_ends_the_readings(nvml: FakeNvml, log: list[LogEvent]) -> None:
    pool = CpuPool(1, 1, 1, lambda *call: None, Clock())
    pool.stop()
    devices = DeviceMetrics()
    devices.note(0.0, pool)
    devices.note(100.0, pool)
    assert log == []


def test_a_server_reads_on_a_thread_of_its_own(nvml: FakeNvml) -> None:
    serving = Serving()
    metrics = serving.server.metrics
    metrics.note(0.0)
    assert nvml.threads == []
    metrics.note(0.0, serving.server.pools.gpus)
    serving.loop.run_until(lambda: bool(metrics.devices.readings))
    assert b'batcher_device_memory_used_bytes{device="0",name="Fake",uuid="GPU-0"}' in (
        metrics.render()
    )
    assert all(name.startswith("batcher-gpu") for name in nvml.threads)
    serving.server.stop()


@pytest.mark.cuda
def test_a_gpu_tells_its_memory_and_use() -> None:
    pytest.importorskip("pynvml", reason="the extra gpu is not installed")
    first, *_ = Nvml().read()
    assert 0 < first.used_bytes <= first.total_bytes
    assert first.busy is None or 0 <= first.busy <= 1
