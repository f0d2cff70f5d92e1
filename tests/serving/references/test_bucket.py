"""Files of a bucket that clients name."""

from __future__ import annotations

import pytest

from batcher.errors import InputMissing, InputSourceFailed, TooLarge
from batcher.serving.references.bucket import PART_BYTES, BucketSource
from batcher.serving.references.source import Fetch, GivenUp
from batcher.serving.repository.stores.store import FileChanged, StoredFile
from tests.support.memory_store import MemoryStore


def fetch(max_bytes: int = 1 << 30) -> Fetch:
    return Fetch(max_bytes, 10.0, lambda: 0.0)


def test_a_file_is_read_once_and_then_by_its_tag() -> None:
    store = MemoryStore({"a": b"abc", "empty": b""})
    source = BucketSource("s3://photos", store)
    found = source.read("a", "", fetch())
    assert found is not None
    assert found.content == b"abc"
    assert source.read("a", found.tag, fetch()) is None
    store.files["a"] = b"other"
    assert source.read("a", found.tag, fetch()) not in (None, found)
    empty = source.read("empty", "", fetch())
    assert empty is not None
    assert empty.content == b""


def test_a_file_that_is_missing_or_too_large_costs_no_bytes() -> None:
    store = MemoryStore({"a": b"abc"})
    source = BucketSource("s3://photos", store)
    with pytest.raises(InputMissing, match="'s3://photos/b': expected a file; there is none"):
        source.read("b", "", fetch())
    with pytest.raises(TooLarge, match="at most 2 bytes"):
        source.read("a", "", fetch(2))
    assert store.fetched == 0


def test_a_store_that_fails_is_named_and_its_words_are_for_the_log() -> None:
    store = MemoryStore({"a": b"abc"})
    store.away = True
    with pytest.raises(InputSourceFailed) as failed:
        BucketSource("s3://photos", store).read("a", "", fetch())
    assert failed.value.public == "'s3://photos/a': expected the store to answer; it did not"
    assert str(failed.value).endswith("the store is away")


class Changing(MemoryStore):
    """A store whose file is another one whenever it was found."""

    def __init__(self, changes: int) -> None:
        super().__init__({"a": b"abc"})
        self.left = changes

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        if self.left:
            self.left -= 1
            raise FileChanged(file.name)
        return super().fetch(file, start, end)


def test_a_file_that_changes_meanwhile_is_read_once_more() -> None:
    found = BucketSource("s3://photos", Changing(1)).read("a", "", fetch())
    assert found is not None
    with pytest.raises(InputSourceFailed):
        BucketSource("s3://photos", Changing(2)).read("a", "", fetch())


def test_a_large_file_ends_between_its_parts_when_nobody_waits() -> None:
    store = MemoryStore({"a": bytes(2 * PART_BYTES + 1)})
    source = BucketSource("s3://photos", store)
    found = source.read("a", "", fetch())
    assert found is not None
    assert len(found.content) == 2 * PART_BYTES + 1
    given_up = fetch()
    taken = store.fetch

    def fetch_one(file: StoredFile, start: int, end: int) -> bytes:
        given_up.is_given_up = True
        return taken(file, start, end)

    store.fetched, store.fetch = 0, fetch_one  # type: ignore[method-assign]
    with pytest.raises(GivenUp):
        source.read("a", "", given_up)
    assert store.fetched == PART_BYTES
