"""What counts as a version, what is left out and why, and what is served while a store is away."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from batcher.errors import ConfigError
from batcher.serving.repository.stores import stores
from batcher.serving.repository.stores.locks import try_lock
from batcher.serving.repository.stores.store import StoredFile
from batcher.serving.repository.stores.stores import AGAIN_S, RETRY_S, STEADY_S
from tests.serving.repository.stores.conftest import ADDRESS, PLACE, Bench
from tests.support.memory_store import MemoryStore


def test_a_version_that_is_seen_first_is_waited_for(bench: Bench) -> None:
    bench.put("m/1", model__yaml="file: f", f="x")
    assert bench.look(patient=False) == []
    assert "has not been the same for 2 s" in bench.reason("m", "1")
    assert bench.look() == ["m/1"]
    assert bench.pauses == [STEADY_S]
    folder = bench.fetch("m/1")
    assert folder is not None
    assert (folder / "f").read_text() == "x"
    assert folder.parts[-2:] == ("m", "1")


def test_a_store_is_named_before_it_is_listed_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    log = SimpleNamespace(info=lambda text, **words: events.append(text.format(**words)))
    monkeypatch.setattr(stores, "_log", log)
    listing = bench.store.list

    def slow(prefix: str) -> list[StoredFile]:
        events.append("listed")
        return listing(prefix)

    monkeypatch.setattr(bench.store, "list", slow)
    bench.look()
    bench.look()
    assert events == [f"listing {ADDRESS}", "listed", "listed"]


def test_what_is_there_from_an_earlier_start_is_not_waited_for(bench: Bench) -> None:
    bench.put("m/1", model__yaml="")
    bench.look()
    bench.fetch("m/1")
    bench.stores = bench.make()
    bench.pauses.clear()
    assert bench.look() == ["m/1"]
    assert bench.pauses == []


def test_an_upload_that_goes_on_is_waited_for_no_longer_than_once(bench: Bench) -> None:
    bench.put("m/1", model__yaml="")
    bench.between = lambda: bench.put("m/1", more=str(bench.now))
    assert bench.look() == []
    assert bench.pauses == [STEADY_S]


@pytest.mark.long
def test_of_100_uploads_in_any_order_with_gaps_none_is_taken_before_its_end(tmp_path: Path) -> None:
    random = Random(17)
    for upload in range(100):
        bench = Bench(tmp_path / str(upload))
        files = {f"m/1/{name}.bin": bytes([upload, name]) for name in range(9)}
        files["m/1/model.yaml"] = b"file: 3.bin"
        names = list(files)
        random.shuffle(names)
        while names:
            # Polls come between the files, at most as far apart as the gaps are long.
            bench.now += random.uniform(0, 1.9)
            assert bench.look(patient=False) == []
            name = names.pop()
            bench.store.files[name] = files[name]
        bench.now += 1
        bench.look(patient=False)
        bench.now += STEADY_S
        assert bench.look(patient=False) == ["m/1"]
        folder = bench.fetch("m/1")
        assert folder is not None
        assert len(list(folder.iterdir())) == 10


def test_a_gap_that_is_longer_than_the_wait_is_told_by_model_yaml(bench: Bench) -> None:
    bench.put("m/1", model__yaml="file: net.onnx")
    assert bench.look() == ["m/1"]
    assert bench.fetch("m/1") is None
    assert "model.yaml names 'net.onnx', which is not there" in bench.reason("m", "1")
    bench.put("m/1", net__onnx="x")
    assert bench.look() == ["m/1"]
    assert bench.fetch("m/1") is not None


def test_other_content_of_a_version_lies_beside_what_serves(bench: Bench) -> None:
    bench.put("m/1", model__yaml="", f="old")
    bench.look()
    old = bench.fetch("m/1")
    bench.put("m/1", f="new")  # of the same size
    bench.look()
    new = bench.fetch("m/1")
    assert old is not None
    assert new is not None
    assert ((old / "f").read_text(), (new / "f").read_text()) == ("old", "new")


def test_a_store_that_is_away_is_served_from_the_cache(bench: Bench) -> None:
    bench.put("m/1", model__yaml="")
    bench.put("m/2", model__yaml="")
    bench.look()
    bench.fetch("m/1")
    bench.store.away = True
    bench.stores = bench.make()
    assert bench.look() == ["m/1"]
    assert bench.stores.known[PLACE].away == ""
    bench.store.away = False
    assert bench.look() == ["m/1", "m/2"]


def test_a_store_that_answers_no_listing_is_served_from_the_cache(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("m/1", model__yaml="")
    bench.look()
    bench.fetch("m/1")

    def list_nothing(prefix: str) -> list[StoredFile]:
        raise ConfigError("index.json: expected files; got a page that asks for a password")

    monkeypatch.setattr(bench.store, "list", list_nothing)
    assert bench.look() == ["m/1"]
    assert bench.stores.known[PLACE].away == ""


def test_what_serves_goes_on_where_the_store_goes_away_while_it_is_put_anew(bench: Bench) -> None:
    bench.put("m/1", model__yaml="", f="x")
    bench.look()
    bench.fetch("m/1")
    (old,) = bench.versions()
    bench.put("m/1", f="z")
    bench.look(patient=False)
    bench.store.away = True
    bench.look(patient=False)
    assert bench.versions() == (old,)


def half_push(bench: Bench) -> None:
    """Fetch two contents of a version one after the other, and put half of a third one."""
    for content in "wx":
        bench.put("m/1", model__yaml="file: f", f=content)
        bench.look()
        assert bench.fetch("m/1") is not None
    bench.put("m/1", f="y", SHA256SUMS=f"{'0' * 64}  f\n{'0' * 64}  more\n")
    bench.look(patient=False)


@pytest.mark.parametrize("is_away", [True, False])
def test_a_server_that_starts_after_half_a_push_begins_with_the_content_before(
    bench: Bench, is_away: bool
) -> None:
    half_push(bench)
    bench.store.away = is_away
    bench.stores = bench.make()
    assert bench.look(patient=False) == ["m/1"]
    folder = bench.fetch("m/1")
    assert folder is not None
    assert (folder / "f").read_text() == "x", "the content that was fetched last"


def test_what_was_removed_from_the_store_does_not_come_back_from_the_cache(bench: Bench) -> None:
    half_push(bench)
    bench.store.files.clear()
    bench.look()
    bench.store.away = True
    bench.stores = bench.make()
    assert bench.look() == []


def test_an_entry_of_the_cache_that_does_not_say_what_it_is_serves_nothing(bench: Bench) -> None:
    half_push(bench)
    for entry in bench.folder.glob("models/*/entry.json"):
        entry.write_text(entry.read_text().replace('"m/1"', '"m/2"'))
    bench.store.away = True
    bench.stores = bench.make()
    assert bench.look() == []


def test_a_listing_that_cannot_be_kept_keeps_no_model_from_serving(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("m/1", model__yaml="")
    bench.look()
    bench.fetch("m/1")

    def keep_listing(store: str, files: list[StoredFile]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench.stores.cache, "keep_listing", keep_listing)
    bench.put("m/2", model__yaml="")
    assert bench.look() == ["m/1", "m/2"]


def test_a_folder_of_a_version_whose_name_is_no_number_is_named(bench: Bench) -> None:
    bench.put("m/1", model__yaml="")
    bench.put("m/v2", model__yaml="")
    assert bench.look() == ["m/1"]
    assert "got 'v2': rename it to 2" in bench.reason("m", "v2")


def test_a_server_that_waits_for_another_one_says_so_once(bench: Bench) -> None:
    bench.put("m/1", model__yaml="", f="x")
    bench.look()
    (version,) = bench.versions()
    bench.stores.cache._make_folder()
    lock = try_lock(bench.stores.cache._lock_path(version.digest), alone=True)
    assert lock
    releases = iter([lambda: None, lambda: None, lock.release])
    bench.between = lambda: next(releases)()
    assert bench.fetch("m/1") is not None
    assert bench.told[0] == "m/1: another server is fetching it"
    assert not any("another" in text for text in bench.told[1:])


def test_a_store_that_never_answered_is_named(bench: Bench) -> None:
    bench.store.away = True
    assert bench.look() == []
    assert "expected s3://bucket/models to answer with its files; the store is away" in str(
        bench.stores.known[PLACE].away
    )


def test_a_damaged_version_is_refused_and_not_asked_for_at_every_poll(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("m/1", model__yaml="", f="x", g="y")
    monkeypatch.setattr(bench.store, "fetch", lambda file, start, end: b"y" * (end - start))
    bench.look()
    assert bench.fetch("m/1") is None
    assert "could not be fetched from s3://bucket/models: f: expected" in bench.reason("m", "1")
    bench.now += AGAIN_S - 1
    assert bench.look(patient=False) == []
    bench.now += 1
    monkeypatch.undo()
    assert bench.look(patient=False) == ["m/1"]
    assert bench.fetch("m/1") is not None


def test_a_version_that_a_store_did_not_hand_out_is_asked_for_again_soon(bench: Bench) -> None:
    bench.put("m/1", model__yaml="", f="x", g="y")
    bench.look()
    bench.store.away = True
    assert bench.fetch("m/1") is None
    bench.store.away = False
    assert bench.look(patient=False) == []
    bench.now += RETRY_S
    assert bench.look(patient=False) == ["m/1"]
    assert bench.fetch("m/1") is not None


def test_what_was_refused_is_asked_for_again_at_a_reload(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("m/1", model__yaml="", f="x", g="y")
    monkeypatch.setattr(bench.store, "fetch", lambda file, start, end: b"y" * (end - start))
    bench.look()
    assert bench.fetch("m/1") is None
    monkeypatch.undo()
    assert bench.look() == ["m/1"]
    assert bench.fetch("m/1") is not None


def test_what_was_whole_serves_on_while_it_is_put_anew_and_where_that_is_damaged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("m/1", model__yaml="", f="x", g="y")
    bench.look()
    bench.fetch("m/1")
    (old,) = bench.versions()
    bench.put("m/1", f="z")
    bench.look(patient=False)
    assert bench.versions() == (old,)
    bench.look()
    assert bench.versions() != (old,)
    monkeypatch.setattr(bench.store, "fetch", lambda file, start, end: b"y" * (end - start))
    bench.fetch("m/1")
    assert bench.versions() == (old,)
    bench.look(patient=False)
    assert bench.versions() == (old,)


def test_a_hundred_looks_at_a_store_are_a_hundred_listings_and_no_fetch(bench: Bench) -> None:
    bench.put("m/1", model__yaml="")
    bench.look()
    bench.fetch("m/1")
    listings, fetched = bench.store.listings, bench.store.fetched
    for _ in range(100):
        bench.now += 1
        assert bench.look(patient=False) == ["m/1"]
    assert (bench.store.listings - listings, bench.store.fetched - fetched) == (100, 0)


def test_a_listing_that_has_not_changed_is_not_worked_out_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("m/1", model__yaml="")
    bench.put("n//2", model__yaml="")
    bench.look()
    known = bench.stores.known[PLACE]
    monkeypatch.setattr(stores, "versions_in", lambda *arguments: pytest.fail("worked out"))
    monkeypatch.setattr(bench.stores.cache, "keep_listing", lambda *arguments: pytest.fail("kept"))
    bench.look()
    assert bench.stores.known[PLACE] == known
    monkeypatch.undo()
    bench.put("n/1", model__yaml="")
    bench.store.files.pop("n//2/model.yaml")
    assert bench.look() == ["m/1", "n/1"]


def test_stores_that_are_named_no_more_are_forgotten(bench: Bench) -> None:
    bench.put("m/1", model__yaml="")
    bench.look()
    bench.stores.look([], True)
    assert bench.stores.known == {}
    bench.store = MemoryStore()
    assert bench.look() == []
