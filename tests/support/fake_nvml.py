"""NVML for tests: a module `pynvml` whose devices are what a test says."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from threading import current_thread
from types import ModuleType, SimpleNamespace

import pytest

GIB = 1 << 30


class NVMLError(Exception):
    """What the library raises."""


class FakeNvml(ModuleType):
    """Two devices of 24 GiB; the numbers of each say what it answers.

    Attributes:
        missing: why there is no driver; empty where there is one.
        used: GiB that are taken of each device; None for one that is lost.
        reserved: GiB of each that the driver keeps for itself.
        is_old: whether the driver cannot tell those from memory that others use.
        busy: percent of time in which each was busy; None for one that does not tell.
        threads: names of the threads that asked for memory.
    """

    NVMLError = NVMLError
    nvmlMemory_v2 = 2

    def __init__(self) -> None:
        """Answer for both devices."""
        super().__init__("pynvml")
        self.__spec__ = ModuleSpec("pynvml", None)
        self.missing = ""
        self.used: list[float | None] = [6, 12]
        self.reserved = 0.5
        self.is_old = False
        self.busy: list[int | None] = [100, 25]
        self.threads: list[str] = []

    def nvmlInit(self) -> None:
        if self.missing:
            raise NVMLError(self.missing)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "Fake"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int | None = None) -> SimpleNamespace:
        if version is not None and self.is_old:
            raise NVMLError("Function Not Found")
        self.threads.append(current_thread().name)
        if (used := self.used[handle]) is None:
            raise NVMLError("GPU is lost")
        used += 0 if version is not None else self.reserved
        return SimpleNamespace(used=int(used * GIB), total=24 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if (busy := self.busy[handle]) is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(gpu=busy)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """The extra `gpu`, installed."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake
