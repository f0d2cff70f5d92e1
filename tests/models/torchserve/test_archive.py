"""What an archive may hold: anything that would leave its folder, or fill the disk, is refused."""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path

import pytest

from batcher.errors import ModelLoadError
from batcher.models import zip_entries
from batcher.models.torchserve.archive import extract
from batcher.models.torchserve.manifest import read_manifest
from batcher.models.zip_entries import FREE_BYTES
from tests.support.archives import archive, manifest


def zipped(file: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("weights.pt", b"first")
        for name, content in entries:
            target.writestr(name, content)
    return file


def linked(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def extracted(file: Path, folder: Path) -> list[str]:
    target = folder / "in" / "side"
    target.mkdir(parents=True)
    extract(file, target)
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())


ESCAPES = [
    ("../evil.py", "a name that leads out of it"),
    ("a/../../evil.py", "a name that leads out of it"),
    ("a/b/../../../../evil.py", "a name that leads out of it"),
    ("/tmp/evil.py", "an absolute name"),
    ("//server/evil.py", "an absolute name"),
    ("C:/evil.py", "an absolute name, or one of another system"),
    ("..\\evil.py", "an absolute name, or one of another system"),
]


@pytest.mark.parametrize(("name", "got"), ESCAPES)
def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, got: str
) -> None:
    file = zipped(tmp_path / "m.mar", (name, b"print()"))
    with pytest.raises(ModelLoadError, match=rf"m\.mar: expected files below .*; got {got}.*evil"):
        extracted(file, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["m.mar"]


def test_a_link_is_refused_and_so_is_what_would_be_written_through_it(tmp_path: Path) -> None:
    file = zipped(tmp_path / "m.mar", (linked("out"), b"/tmp"), ("out/evil.py", b""))
    with pytest.raises(ModelLoadError, match="got a link: 'out'"):
        extracted(file, tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = zipped(tmp_path / "m.mar", ("a.py", b"1"), ("a.py", b"2"))
    with pytest.raises(ModelLoadError, match=r"got two files of one name: 'a\.py'"):
        extracted(file, tmp_path)


def test_a_bomb_is_refused_by_the_list_of_its_files(tmp_path: Path) -> None:
    file = zipped(tmp_path / "m.mar", ("zeros", bytes(2 * FREE_BYTES)))
    assert file.stat().st_size < FREE_BYTES // 100
    with pytest.raises(ModelLoadError, match=r"expected at most .* for each byte of the archive"):
        extracted(file, tmp_path)
    assert not list((tmp_path / "in").rglob("zeros"))


def test_a_bomb_whose_list_lies_ends_where_the_list_says(tmp_path: Path) -> None:
    file = zipped(tmp_path / "m.mar", ("zeros", bytes(1 << 20)))
    data = file.read_bytes()
    file.write_bytes(data.replace((1 << 20).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    with pytest.raises(ModelLoadError, match=r"m\.mar: expected an archive"):
        extracted(file, tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "in").rglob("*") if path.is_file()) < 99


def test_more_files_than_any_model_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_entries, "MAX_FILES", 3)
    file = zipped(tmp_path / "m.mar", *((f"f{place}", b"") for place in range(3)))
    with pytest.raises(ModelLoadError, match="expected at most 3 files; got 4"):
        extracted(file, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.mar").write_bytes(content)
    with pytest.raises(ModelLoadError, match="expected an archive that torch-model-archiver"):
        extracted(tmp_path / "m.mar", tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_content_that_is_damaged_names_the_archive(tmp_path: Path, method: int) -> None:
    file = tmp_path / "m.mar"
    with zipfile.ZipFile(file, "w", method) as target:
        target.writestr("h.py", b"print()\n" * 100)
    data = bytearray(file.read_bytes())
    content = data.index(b"h.py") + len("h.py")
    data[content : content + 20] = b"\xff" * 20
    file.write_bytes(data)
    with pytest.raises(ModelLoadError, match=r"m\.mar: expected an archive that torch-model"):
        extracted(file, tmp_path)


def test_a_sound_archive_is_extracted_with_its_folders(tmp_path: Path) -> None:
    file = zipped(tmp_path / "m.mar", ("a/b.py", b"1"), ("a/", b""), ("empty.txt", b""))
    assert extracted(file, tmp_path) == ["a/b.py", "empty.txt", "weights.pt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "expected an archive with MAR-INF/MANIFEST.json and in it model.handler"),
        ("[1]", "expected an archive with MAR-INF/MANIFEST.json and in it model.handler"),
        (manifest("h.py"), "handler: expected a file h.py in the archive, or one of base_handler"),
        ("[" * 100_000, "got RecursionError"),
        (manifest("../../evil.py"), "handler: expected a file of the archive; got '../../evil'"),
        (manifest("/tmp/evil.py"), "handler: expected a file of the archive; got '/tmp/evil'"),
        (manifest("text_classifier"), "got text_classifier: it needs torchtext"),
        (
            manifest("base_handler", serializedFile="../../etc/passwd"),
            "serializedFile: expected a file of the archive; got '../../etc/passwd'",
        ),
        (
            manifest("base_handler", modelFile="/etc/passwd"),
            "modelFile: expected a file of the archive; got '/etc/passwd'",
        ),
        (manifest("src/h.py"), "handler: expected a Python file at the top of the archive; got 's"),
        (
            manifest("a.b.py"),
            "handler: expected a Python file at the top of the archive; got 'a.b'",
        ),
        (manifest(""), "handler: expected the name of a file; got ''"),
        (manifest("base_handler").replace('"base_handler"', "[1]"), "name of a file; got [1]"),
        (manifest("base_handler", envelope="json"), "envelope: expected none; got 'json'"),
        (
            manifest("base_handler", serializedFile="a\0.pt"),
            "serializedFile: expected a file of the archive; got 'a\\x00.pt'",
        ),
        (
            manifest("base_handler", serializedFile="a" * 300),
            "serializedFile: expected a file of the archive; got 'aaa",
        ),
    ],
)
def test_a_manifest_that_names_what_is_not_in_the_archive_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text(text)
    with pytest.raises(ModelLoadError, match=re.escape(words)):
        read_manifest(tmp_path)


def test_an_archive_has_the_members_that_the_archiver_writes(tmp_path: Path) -> None:
    extract(archive(tmp_path / "m.mar", "h:go", {"h.py": "def go(data, context): ..."}), tmp_path)
    found = read_manifest(tmp_path)
    assert (found.handler, found.function, found.is_default) == ("h", "go", False)
