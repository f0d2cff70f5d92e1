"""How many cores and bytes this process may use: fewer than the machine has, in a container.

    cores = min(cores that the process may run on, ceil(quota))

The quota is the CPU time that a control group (cgroup) grants in a second. A Kubernetes limit of
`2500m` and `docker run --cpus 2.5` are a quota of 2.5, so 3 cores. Rounded up, since threads that
share the last part of a core are stopped for a part of the time only, while a core that no thread
uses is lost. Without that bound every thread of a process on a machine of 64 cores would be stopped
for most of the time.

Groups are nested, and each may have a quota: the smallest counts. Linux has two versions of control
groups, and a machine may have both.

| version | where the process is, in `/proc/self/cgroup` | quota and period, in microseconds |
|---|---|---|
| 1 | `4:cpu,cpuacct:/path` | `cpu.cfs_quota_us` (-1 is none), `cpu.cfs_period_us` |
| 2 | `0::/path` | `cpu.max`, such as `250000 100000` or `max 100000` |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from math import ceil, inf
from pathlib import Path, PurePosixPath

_ROOT = Path("/")

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes a number of this size where memory is not limited."""


def cores(root: Path = _ROOT) -> int:
    """Return how many cores this process may use, at least one.

    `root` is the folder in which `/proc` and `/sys` lie. The quota is read once: a reload asks on
    the event loop, which is not to wait for files.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = _quota(root)
    return allowed if quota == inf else max(1, min(allowed, ceil(quota)))


def memory_limit(root: Path = _ROOT) -> int | None:
    """Return how many bytes control groups allow this process; None without a limit.

    `root` is as in `cores`.
    """
    return min(
        (limit for each in _folders(root, "memory") for limit in _limit_in(each)), default=None
    )


@cache
def _quota(root: Path) -> float:
    """Return the smallest quota of the control groups around this process, in cores."""
    return min(_quotas(root), default=inf)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota of each control group around this process that has one, in cores."""
    for folder in _folders(root, "cpu"):
        yield from _quota_in(folder)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of each control group around this process, for one controller."""
    groups = _groups(root)
    for mount_root, mount_point, kind, options in _mounts(root):
        group = groups.get("" if kind == "cgroup2" else controller)
        if group is None or (kind == "cgroup" and controller not in options):
            continue
        top = root / mount_point.relative_to("/")
        folder = top / _below(group, mount_root)
        while True:
            yield folder
            if folder == top:
                break
            folder = folder.parent


def _groups(root: Path) -> dict[str, PurePosixPath]:
    """Return the path of this process's group for each controller; version 2 has the key ''."""
    found: dict[str, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        fields = line.split(":", 2)
        if len(fields) == 3:
            found |= dict.fromkeys(fields[1].split(","), PurePosixPath(fields[2]))
    return found


def _mounts(root: Path) -> Iterator[tuple[PurePosixPath, PurePosixPath, str, list[str]]]:
    """Yield root, mount point, kind and options of each mounted hierarchy of control groups."""
    for line in _lines(root / "proc/self/mountinfo"):
        place, _, system = line.partition(" - ")
        fields, more = place.split(" "), system.split(" ")
        if len(fields) > 4 and more[0] in ("cgroup", "cgroup2"):
            yield PurePosixPath(fields[3]), PurePosixPath(fields[4]), more[0], more[-1].split(",")


def _below(group: PurePosixPath, mount_root: PurePosixPath) -> PurePosixPath:
    """Return where `group` lies below a mount of `mount_root`.

    A container often sees its own group alone, mounted as the top, and has its path on the host.
    """
    if ".." in group.parts or not group.is_relative_to(mount_root):
        return PurePosixPath()
    return group.relative_to(mount_root)


def _quota_in(folder: Path) -> Iterator[float]:
    """Yield the quota that is set in `folder`, in cores, if there is one."""
    texts = _lines(folder / "cpu.max")
    if not texts:
        texts = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    # "max", or a file that is not there, is no quota.
    with suppress(ValueError):
        quota, period = map(int, " ".join(texts).split())
        if quota > 0 and period > 0:
            yield quota / period


def _limit_in(folder: Path) -> Iterator[int]:
    """Yield the bytes that are allowed in `folder`, if they are limited."""
    texts = _lines(folder / "memory.max") or _lines(folder / "memory.limit_in_bytes")
    with suppress(ValueError):
        limit = int(" ".join(texts))
        if limit < _NO_LIMIT_BYTES:
            yield limit


def _lines(path: Path) -> list[str]:
    """Return the lines of a file, none where it cannot be read."""
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []
