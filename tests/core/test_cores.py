"""Cores that the process may use, from trees of files as Linux shows them in containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batcher.core.cores import cores

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_SETS = "33 31 0:30 {root} /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def machine(root: Path, group: str, mounts: str, files: dict[str, str]) -> Path:
    texts = {"proc/self/cgroup": group, "proc/self/mountinfo": mounts}
    texts |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("20000 10000", 2),
        ("6400000 100000", 8),
        ("garbage", 8),
        ("", 8),
        ("0 100000", 8),
    ],
)
def test_a_quota_of_version_2_bounds_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"cpu.max": f"{quota}\n"}
    assert cores(machine(tmp_path, "0::/\n", V2.format(root="/"), files)) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"), [(-1, 100000, 8), (150000, 100000, 2), (50000, 50000, 1)]
)
def test_a_quota_of_version_1_bounds_the_cores(
    tmp_path: Path, quota: int, period: int, expected: int
) -> None:
    folder = "cpu,cpuacct/docker/7f"
    files = {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}"}
    groups = "5:cpuset:/other\n4:cpu,cpuacct:/docker/7f\n0::/docker/7f\n"
    mounts = V1.format(root="/") + V1_SETS.format(root="/")
    assert cores(machine(tmp_path, groups, mounts, files)) == expected


@pytest.mark.parametrize(("group", "expected"), [("/pod/app", 3), ("/other", 7)])
def test_the_smallest_quota_of_nested_groups_counts(
    tmp_path: Path, group: str, expected: int
) -> None:
    files = {
        "cpu.max": "700000 100000",
        "pod/cpu.max": "300000 100000",
        "pod/app/cpu.max": "max 100000",
    }
    assert cores(machine(tmp_path, f"0::{group}\n", V2.format(root="/"), files)) == expected


def test_the_quota_is_read_once(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(root="/"), {"cpu.max": "200000 100000"})
    assert cores(root) == 2
    (root / "sys/fs/cgroup/cpu.max").write_text("300000 100000")
    assert cores(root) == 2


@pytest.mark.parametrize("group", ["/docker/7f", "/", "/../elsewhere", "/somewhere/else"])
def test_a_container_finds_its_own_group_mounted_as_the_top(tmp_path: Path, group: str) -> None:
    files = {"cpu.max": "200000 100000"}
    mounts = V2.format(root="/docker/7f")
    assert cores(machine(tmp_path, f"0::{group}\n", mounts, files)) == 2


def test_a_group_inside_a_container_is_found_below_the_mounted_top(tmp_path: Path) -> None:
    files = {"inner/cpu.max": "200000 100000", "cpu.max": "max 100000"}
    mounts = V2.format(root="/docker/7f")
    assert cores(machine(tmp_path, "0::/docker/7f/inner\n", mounts, files)) == 2


@pytest.mark.parametrize(
    ("unified", "expected"), [({}, 4), ({"unified/cpu.max": "200000 100000"}, 2)]
)
def test_both_versions_count_where_a_machine_has_both(
    tmp_path: Path, unified: dict[str, str], expected: int
) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    groups = "4:cpu,cpuacct:/\n0::/\n"
    mounts = V2.format(root="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    root = machine(tmp_path, groups, V1.format(root="/") + mounts, files | unified)
    assert cores(root) == expected


def test_without_control_groups_the_cores_that_the_process_may_run_on_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cores(tmp_path) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1


def test_lines_that_nobody_understands_are_passed_over(tmp_path: Path) -> None:
    mounts = "nonsense\n\n1 2 3 - cgroup2\n" + V2.format(root="/")
    files = {"cpu.max": "200000 100000"}
    assert cores(machine(tmp_path, "nonsense\n0::/\n", mounts, files)) == 2
