"""The cache is bounded, shared, and never loses what somebody serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.errors import ConfigError
from batcher.serving.repository.stores.cache import StoreCache
from batcher.serving.repository.stores.store import StoredFile
from batcher.serving.repository.stores.versions import StoredVersion

ROOT = Path(__file__).parents[4]


def version(number: int, size: int = 100) -> StoredVersion:
    return StoredVersion("s3://b", "m", str(number), f"m/{number}", (StoredFile("f", size, "t"),))


def fill(cache: StoreCache, one: StoredVersion) -> None:
    def fetch(folder: Path, notes: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(b"x" * one.nbytes)

    cache.fill(one, fetch, lambda: pytest.fail("nobody else fetches"))


def aged(cache: StoreCache, one: StoredVersion, seconds: float) -> None:
    os.utime(cache.folder / one.digest / "complete", (seconds, seconds))


def test_a_version_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    cache, one = StoreCache(tmp_path, 1000), version(1)
    assert not cache.has(one)
    assert not cache.hold(one)
    fill(cache, one)
    assert (one.folder_in(cache.folder) / "f").read_bytes() == b"x" * 100
    cache.fill(one, lambda folder, notes: pytest.fail("it is there"), lambda: None)
    again = StoreCache(tmp_path, 1000)
    assert again.has(one)
    assert again.hold(one)


def test_versions_that_were_used_longest_ago_make_room(tmp_path: Path) -> None:
    cache = StoreCache(tmp_path, 350)
    versions = [version(number) for number in range(1, 5)]
    for age, one in enumerate(versions[:3]):
        fill(cache, one)
        aged(cache, one, 1000 + age)
    cache.hold_only(frozenset())
    aged(cache, versions[0], 2000)  # it was used again
    fill(cache, versions[3])
    assert [cache.has(one) for one in versions] == [True, False, True, True]
    assert not list(cache.folder.glob(f"{versions[1].digest}*"))


def test_what_serves_is_never_removed(tmp_path: Path) -> None:
    mine, theirs = StoreCache(tmp_path, 250), StoreCache(tmp_path, 250)
    old, new, third = version(1), version(2), version(3)
    fill(mine, old)
    fill(theirs, new)
    theirs.hold_only(frozenset())
    aged(mine, old, 1000)
    fill(theirs, third)
    assert mine.has(old)
    assert not mine.has(new)


def with_free(monkeypatch: pytest.MonkeyPatch, cache: StoreCache, disk: int) -> None:
    """Have the disk hold `disk` bytes of versions."""

    def usage(folder: Path) -> Any:
        return SimpleNamespace(free=disk - sum(each.nbytes for each in cache.entries()))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_what_was_used_longest_ago_makes_room_on_a_disk_that_is_smaller_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = StoreCache(tmp_path, 10_000)
    with_free(monkeypatch, cache, 250)
    for number in (1, 2, 3):
        fill(cache, version(number))
        aged(cache, version(number), 1000 + number)
        cache.hold_only(frozenset())
    assert [cache.has(version(number)) for number in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize("bound", [250, 10_000])
def test_nothing_is_removed_for_a_version_that_can_never_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    cache = StoreCache(tmp_path, bound)
    with_free(monkeypatch, cache, 250)
    fill(cache, version(1))
    cache.hold_only(frozenset())
    with pytest.raises(ConfigError, match=r"expected .*300 bytes"):
        fill(cache, version(2, 300))
    assert cache.has(version(1))


def test_a_version_that_cannot_fit_is_refused_with_the_figures(tmp_path: Path) -> None:
    cache = StoreCache(tmp_path, 150)
    fill(cache, version(1))
    with pytest.raises(ConfigError, match=r"room for 100 bytes .* got 50, .* store_cache_bytes is"):
        fill(cache, version(2))
    with pytest.raises(ConfigError, match="room for 151 bytes"):
        fill(StoreCache(tmp_path / "other", 150), version(3, 151))


def test_what_a_killed_process_has_fetched_counts_and_can_be_removed(tmp_path: Path) -> None:
    cache, half, whole = StoreCache(tmp_path, 150), version(1), version(2)

    def killed(folder: Path, notes: Path) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        cache.fill(half, killed, lambda: None)
    (entry,) = cache.entries()
    assert (entry.nbytes, entry.is_whole) == (100, False)
    fill(cache, whole)
    assert [each.digest for each in cache.entries()] == [whole.digest]


@pytest.mark.parametrize("text", ["", "{}", "[3]", '{"bytes": null}'])
def test_an_entry_that_a_stop_of_the_machine_has_emptied_counts_and_can_be_removed(
    tmp_path: Path, text: str
) -> None:
    cache = StoreCache(tmp_path, 150)
    fill(cache, version(1))
    (cache.folder / version(1).digest / "entry.json").write_text(text)
    with pytest.raises(ConfigError, match="room for 100 bytes"):
        fill(cache, version(2))
    cache.hold_only(frozenset())
    fill(cache, version(2))
    assert not cache.has(version(1))


def test_one_process_waits_while_another_one_fetches(tmp_path: Path) -> None:
    one = version(1)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.serving.repository.stores.test_cache import *\n"
        "def fetch(folder, notes):\n"
        "    folder.mkdir(parents=True)\n"
        "    (folder / 'f').write_bytes(b'x')\n"
        "    print('fetching', flush=True)\n"
        "    sys.stdin.readline()\n"
        "StoreCache(Path(sys.argv[1]), 1000).fill(version(1), fetch, lambda: None)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "fetching\n"
    waits = []

    def wait() -> None:
        waits.append(1)
        process.communicate("\n")

    StoreCache(tmp_path, 1000).fill(one, lambda *_: pytest.fail("it comes from the other"), wait)
    assert waits == [1]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models").chmod(0o777)
    with pytest.raises(ConfigError, match=r"store_cache: .*others may write to it"):
        fill(StoreCache(tmp_path, 1000), version(1))


def test_a_listing_is_kept_with_its_age(tmp_path: Path) -> None:
    cache = StoreCache(tmp_path, 1000)
    files = [StoredFile("b", 1, "x"), StoredFile("a", 2, "y")]
    assert cache.kept_listing("s3://b") is None
    cache.keep_listing("s3://b", files)
    (path,) = cache.folder.glob("listing-*")
    os.utime(path, (1000, 1000))
    cache.keep_listing("s3://b", files[::-1])
    assert path.stat().st_mtime == 1000
    assert cache.kept_listing("s3://b", 100.0) == sorted(files)
    cache.keep_listing("s3://b", files[:1])
    assert cache.kept_listing("s3://b", 100.0) is None
    assert cache.kept_listing("s3://b") == files[:1]
    path.write_text("{")
    assert cache.kept_listing("s3://b") is None
