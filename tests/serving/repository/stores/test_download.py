"""Versions come whole, or not at all; what was fetched once is not fetched again."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import md5, sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import ConfigError
from batcher.serving.repository.stores import checksums
from batcher.serving.repository.stores.checksums import damaged, read_sums
from batcher.serving.repository.stores.download import TRIES, Download
from batcher.serving.repository.stores.parts import MIB, PARTS, PartialFile, part_bytes
from batcher.serving.repository.stores.store import FileChanged, StoredFile
from batcher.serving.repository.stores.versions import StoredVersion, versions_in
from tests.serving.repository.stores.conftest import ADDRESS
from tests.support.memory_store import MemoryStore

BIG = Random(1).randbytes(5 * MIB + 3)


def version_of(store: MemoryStore) -> StoredVersion:
    (version,), _ = versions_in(ADDRESS, store.list(""))
    return version


def download(store: MemoryStore, **more: Callable[..., object]) -> Download:
    return Download(store, version_of(store), lambda text: None, **more)  # type: ignore[arg-type]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore({"m/1/model.yaml": b"file: big.pt\n", "m/1/big.pt": BIG, "m/1/a/b": b""})


def test_a_version_is_fetched_whole(store: MemoryStore, tmp_path: Path) -> None:
    told: list[str] = []
    Download(store, version_of(store), told.append).run(tmp_path / "to", tmp_path / "notes")
    assert (tmp_path / "to/big.pt").read_bytes() == BIG
    assert (tmp_path / "to/a/b").read_bytes() == b""
    assert store.fetched == len(BIG) + 13
    assert told[0] == "fetching, 0.0 of 5.0 MiB"
    assert "fetching, 5.0 of 5.0 MiB" in told
    assert told[-1] == "checking what was fetched"


@given(st.integers(0, 200 << 30))
def test_parts_of_a_file_are_few_and_fit_into_memory(size: int) -> None:
    assert MIB <= part_bytes(size) <= 64 * MIB
    if part_bytes(size) < 64 * MIB:
        assert size <= PARTS * part_bytes(size)


def test_a_download_that_was_broken_off_goes_on_where_it_was(
    store: MemoryStore, tmp_path: Path
) -> None:
    kept = store.fetch
    calls = []

    def fetch(file: StoredFile, start: int, end: int) -> bytes:
        calls.append(start)
        if len(calls) > 3:
            raise SystemExit("killed")
        return kept(file, start, end)

    store.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        download(store).run(tmp_path / "to", tmp_path / "notes")
    store.fetch = kept  # type: ignore[method-assign]
    download(store).run(tmp_path / "to", tmp_path / "notes")
    assert (tmp_path / "to/big.pt").read_bytes() == BIG
    assert store.fetched == len(BIG) + 13


def test_what_is_there_of_a_file_without_a_tag_may_be_of_other_content(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.memory_store._tag", lambda content: "")
    kept = store.fetch
    calls = iter(range(3))

    def fetch(file: StoredFile, start: int, end: int) -> bytes:
        if next(calls, None) is None:
            raise SystemExit("killed")
        return kept(file, start, end)

    store.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        download(store).run(tmp_path / "to", tmp_path / "notes")
    store.fetch = kept  # type: ignore[method-assign]
    store.files["m/1/big.pt"] = new = bytes(len(BIG))
    download(store).run(tmp_path / "to", tmp_path / "notes")
    assert (tmp_path / "to/big.pt").read_bytes() == new


def test_after_another_boot_nothing_is_taken_up(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = PartialFile(tmp_path / "f", tmp_path / "notes", 3 * MIB)
    for part in partial.open()[:2]:
        partial.write(part, bytes(MIB))
    assert len(PartialFile(tmp_path / "f", tmp_path / "notes", 3 * MIB).open()) == 1
    monkeypatch.setattr("batcher.serving.repository.stores.parts._boot", lambda: "another")
    assert len(PartialFile(tmp_path / "f", tmp_path / "notes", 3 * MIB).open()) == 3


def test_a_part_is_asked_for_again(store: MemoryStore, tmp_path: Path) -> None:
    kept, failures, pauses = store.fetch, iter(range(TRIES - 1)), []

    def fetch(file: StoredFile, start: int, end: int) -> bytes:
        if file.name.endswith("yaml") and next(failures, None) is not None:
            raise ConnectionError("reset")
        return kept(file, start, end)

    store.fetch = fetch  # type: ignore[method-assign]
    download(store, pause=pauses.append).run(tmp_path / "to", tmp_path / "notes")
    assert pauses == [0.5, 1, 2, 4]
    assert (tmp_path / "to/big.pt").read_bytes() == BIG


def test_a_store_that_stays_away_ends_the_download(store: MemoryStore, tmp_path: Path) -> None:
    fetching = download(store, pause=lambda seconds: None)
    store.away = True
    with pytest.raises(OSError, match="away"):
        fetching.run(tmp_path / "to", tmp_path / "notes")


def test_a_server_that_stops_fetches_nothing_more(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="being stopped"):
        download(store, stopped=lambda: True).run(tmp_path / "to", tmp_path / "notes")
    assert store.fetched == 0


def test_a_file_that_changes_meanwhile_ends_the_download(
    store: MemoryStore, tmp_path: Path
) -> None:
    fetching = download(store)
    store.files["m/1/big.pt"] = b"other"
    with pytest.raises(FileChanged, match="big"):
        fetching.run(tmp_path / "to", tmp_path / "notes")


def test_a_part_that_comes_short_once_is_asked_for_again(
    store: MemoryStore, tmp_path: Path
) -> None:
    kept, cuts, pauses = store.fetch, iter([1]), []

    def fetch(file: StoredFile, start: int, end: int) -> bytes:
        return kept(file, start, end)[next(cuts, 0) :]

    store.fetch = fetch  # type: ignore[method-assign]
    download(store, pause=pauses.append).run(tmp_path / "to", tmp_path / "notes")
    assert pauses == [0.5]
    assert (tmp_path / "to/big.pt").read_bytes() == BIG


def test_a_short_answer_is_an_error(store: MemoryStore, tmp_path: Path) -> None:
    kept = store.fetch

    def fetch(file: StoredFile, start: int, end: int) -> bytes:
        return kept(file, start, end)[:-1]

    store.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(OSError, match=r"expected 13 bytes .* sent 12"):
        download(store, pause=lambda seconds: None).run(tmp_path / "to", tmp_path / "notes")


@pytest.mark.parametrize("with_sums", [False, True])
def test_one_flipped_bit_is_found_and_fetched_anew(
    store: MemoryStore, tmp_path: Path, with_sums: bool
) -> None:
    if with_sums:
        lines = [f"{sha256(store.files[f'm/1/{n}']).hexdigest()}  {n}\n" for n in ("big.pt", "a/b")]
        store.files["m/1/SHA256SUMS"] = "".join(lines).encode()
    kept = store.fetch

    def flip(file: StoredFile, start: int, end: int) -> bytes:
        content = bytearray(kept(file, start, end))
        if start == 2 * MIB:
            content[77] ^= 1
        return bytes(content)

    store.fetch = flip  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"^big.pt: expected the content that SHA256SUMS"):
        download(store).run(tmp_path / "to", tmp_path / "notes")
    store.fetch = kept  # type: ignore[method-assign]
    before = store.fetched
    download(store).run(tmp_path / "to", tmp_path / "notes")
    assert (tmp_path / "to/big.pt").read_bytes() == BIG
    assert store.fetched - before == len(BIG)


def test_a_bucket_whose_tags_are_no_checksums_is_checked_by_its_sums(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It encrypts with a key of its own, and the sums were written by `find`, which finds them."""

    def tag(content: bytes) -> str:
        return md5(b"key" + content).hexdigest()

    monkeypatch.setattr("tests.support.memory_store._tag", tag)
    said = {"big.pt": BIG, "a/b": b"", "model.yaml": b"file: big.pt\n", "./SHA256SUMS": b""}
    lines = "".join(f"{sha256(content).hexdigest()}  {name}\n" for name, content in said.items())
    store.files["m/1/SHA256SUMS"] = lines.encode()
    download(store).run(tmp_path / "to", tmp_path / "notes")
    assert (tmp_path / "to/big.pt").read_bytes() == BIG
    store.files["m/1/big.pt"] = BIG[:-1] + b"?"
    with pytest.raises(ConfigError, match=r"^big.pt: expected the content that SHA256SUMS"):
        download(store).run(tmp_path / "other", tmp_path / "other notes")


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"model.yaml": b"file: big.pt"}, "model.yaml names 'big.pt'"),
        ({"model.yaml": b"weights: ./w.pt"}, "model.yaml names 'w.pt'"),
        ({"model.yaml": b"format: onnx", "a/b.onnx": b"x"}, r"model.yaml names '\*.onnx'"),
        ({"model.yaml": b"", "SHA256SUMS": b"0" * 64 + b"  x.py"}, "SHA256SUMS names 'x.py'"),
    ],
)
def test_nothing_else_is_fetched_of_an_upload_that_has_not_ended(
    files: dict[str, bytes], missing: str, tmp_path: Path
) -> None:
    store = MemoryStore({f"m/1/{name}": content for name, content in files.items()})
    store.files["m/1/other"] = bytes(1000)
    with pytest.raises(ConfigError, match=f"the upload has not ended: {missing}"):
        download(store).run(tmp_path / "to", tmp_path / "notes")
    assert store.fetched < 1000


def test_a_wrong_model_yaml_is_fetched_for_its_load_to_say_so(tmp_path: Path) -> None:
    store = MemoryStore({"m/1/model.yaml": b"a: [", "m/1/x": b"x"})
    download(store).run(tmp_path / "to", tmp_path / "notes")
    assert (tmp_path / "to/model.yaml").read_bytes() == b"a: ["


def test_a_huge_model_yaml_is_refused(tmp_path: Path) -> None:
    store = MemoryStore({"m/1/model.yaml": bytes(5 * MIB)})
    with pytest.raises(ConfigError, match=r"model.yaml: expected at most 4194304 bytes"):
        download(store).run(tmp_path / "to", tmp_path / "notes")


def test_sums_are_read_as_sha256sum_writes_them() -> None:
    digest = sha256(b"x").hexdigest()
    text = f"{digest}  ./a b\n{digest.upper()} *sub/c\n\n"
    assert read_sums(text) == {"a b": digest, "sub/c": digest}
    with pytest.raises(ConfigError, match="SHA256SUMS:2: expected a SHA-256"):
        read_sums(f"{digest}  a\nnonsense\n")


def test_tags_that_are_no_checksums_are_not_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())

    def of(*tags: str) -> list[StoredFile]:
        return [StoredFile(name, 1, tag) for name, tag in zip("ab", tags, strict=True)]

    right = [md5(name).hexdigest() for name in (b"a", b"b")]
    assert damaged(tmp_path, of(*right), {}) == []
    assert damaged(tmp_path, of("0" * 32, right[1]), {}) == ["a"]
    assert damaged(tmp_path, of("0" * 32, "1" * 32), {}) == []  # a bucket with keys of its own
    assert damaged(tmp_path, of("0" * 32, f"{'1' * 32}-3"), {}) == []  # one of them in parts
    assert damaged(tmp_path, of("0" * 32, "0x8DB"), {}) == ["a"]
    assert damaged(tmp_path, of("0x8DB", "5f-1"), {}) == []
    assert damaged(tmp_path, of(sha256(b"a").hexdigest(), "0" * 64), {}) == ["b"]
    said = [f"sha256:{sha256(name).hexdigest().upper()}" for name in (b"a", b"c")]
    assert damaged(tmp_path, of(*said), {}) == ["b"]
    assert damaged(tmp_path, of("sha256:abc", said[1]), {}) == ["a", "b"]


def test_a_tag_of_an_upload_in_parts_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "PART_SIZES", (4, 8))
    (tmp_path / "a").write_bytes(b"0123456789")
    digests = b"".join(md5(part).digest() for part in (b"0123", b"4567", b"89"))
    assert checksums._fits_tag(tmp_path / "a", f"{md5(digests).hexdigest()}-3") is True
    assert checksums._fits_tag(tmp_path / "a", f"{'0' * 32}-3") is None
