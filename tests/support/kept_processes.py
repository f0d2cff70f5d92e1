"""Processes of `multiprocessing` that run nothing, and note which signals they were sent."""

from __future__ import annotations

from multiprocessing.process import BaseProcess

KEPT: list[KeptProcess] = []
"""All that were started."""


class _Life:
    """What `multiprocessing` knows of a process that was started: here, what it was sent."""

    sentinel = -1
    method = "forkserver"  # no child of this process, and so not asked for at the system

    def __init__(self, heeds: tuple[str, ...]) -> None:
        self.sent: list[str] = []
        self._heeds = heeds
        self._status: int | None = None

    def poll(self) -> int | None:
        return self._status

    def terminate(self) -> None:
        self._send("SIGTERM")

    def kill(self) -> None:
        self._send("SIGKILL")

    def _send(self, name: str) -> None:
        self.sent.append(name)
        if name in self._heeds:
            self.end()

    def end(self) -> None:
        self._status = 0


class KeptProcess(BaseProcess):
    """A process that ends when it is sent one of the signals that it heeds."""

    def __init__(self, name: str, *heeds: str) -> None:
        super().__init__(name=name)
        self._life = _Life(heeds or ("SIGTERM", "SIGKILL"))

    @property
    def sent(self) -> list[str]:
        """The names of the signals that the process was sent."""
        return self._life.sent

    def end(self) -> None:
        """Be a process that has ended."""
        self._life.end()

    @staticmethod
    def _Popen(process: KeptProcess) -> _Life:
        KEPT.append(process)
        return process._life


def start_for_all(name: str) -> None:
    """Start a process as a library does that shares it among its callers."""
    KeptProcess(name).start()
