"""Memory of a process and all its descendants, as the kernel counts it.

Pages of a process alone (heap, stacks, files that are mapped) are summed over the processes. Memory
files (`memfd`, `/dev/shm`), which several processes map, are counted once each, by what they hold.
A library that two processes map is counted twice: that overstates the sum by some 100 MB a child,
and is the same at the start and at the peak.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

INTERVAL_S = 0.02


def process_tree(pid: int) -> list[int]:
    """Return `pid` and the ids of all its descendants that still run."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except OSError:
                continue  # that thread has ended meanwhile
    return found


def memory_of(pid: int) -> int:
    """Return the bytes of memory that the process and its descendants hold."""
    files: dict[tuple[int, int], int] = {}
    private = 0
    for one in process_tree(pid):
        try:
            private += _private(one)
            _add_memory_files(one, files)
        except OSError:
            continue  # that process has ended meanwhile
    return private + sum(files.values())


def _private(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        _, resident, _ = file.read().split(maxsplit=2)
    with open(f"/proc/{pid}/status") as file:
        shared = next((line for line in file if line.startswith("RssShmem:")), "RssShmem: 0 kB")
    return int(resident) * os.sysconf("SC_PAGE_SIZE") - int(shared.split()[1]) * 1024


def _add_memory_files(pid: int, files: dict[tuple[int, int], int]) -> None:
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(path).startswith(("/memfd:", "/dev/shm/")):
                status = os.stat(path)
                files[status.st_dev, status.st_ino] = status.st_blocks * 512
        except OSError:
            continue  # closed meanwhile


class Peak(threading.Thread):
    """Looks at a server's memory again and again until `stop`.

    Attributes:
        nbytes: most bytes of memory that were seen.
    """

    def __init__(self, pid: int) -> None:
        """Watch the process `pid`."""
        super().__init__(daemon=True)
        self.nbytes = 0
        self._pid = pid
        self._over = threading.Event()

    def run(self) -> None:
        """Look until `stop` is called."""
        while not self._over.wait(INTERVAL_S):
            self.nbytes = max(self.nbytes, memory_of(self._pid))

    def stop(self) -> int:
        """End the thread, and return the most bytes that were seen."""
        self._over.set()
        self.join()
        return self.nbytes
