"""Which files the jobs of a server may read and write."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.errors import Forbidden, InvalidInput
from batcher.serving.jobs.allowed import MAX_PLACE_CHARS, allowed_place

STORES = ("s3://bucket/in", "gs://all/")


def allowed(place: str, base: Path, prefixes: tuple[str, ...] = ("in",)) -> str:
    return allowed_place(place, prefixes, base, "input")


def test_a_path_below_a_listed_folder_is_allowed(tmp_path: Path) -> None:
    inside = tmp_path / "in" / "deep" / "rows.jsonl"
    assert allowed(str(inside), tmp_path) == str(inside)
    assert allowed(f"{tmp_path}/in/../in/rows.jsonl", tmp_path) == f"{tmp_path}/in/rows.jsonl"
    assert allowed(str(inside), tmp_path, (str(tmp_path),)) == str(inside)


@pytest.mark.parametrize(
    "place",
    [
        "{}/out/rows.jsonl",
        "{}/in/../secret",
        "{}/in",
        "{}/inside/x",
        "in/rows.jsonl",
        "{}/in/link/x",
    ],
)
def test_any_other_path_is_forbidden(place: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(Forbidden, match=r"below one of the places in the setting `jobs\.inputs`"):
        allowed(place.format(tmp_path), tmp_path)


@pytest.mark.parametrize("place", ["s3://bucket/in/a/b.jsonl", "gs://all/rows.csv"])
def test_an_address_below_a_listed_one_is_allowed(place: str, tmp_path: Path) -> None:
    assert allowed(place, tmp_path, STORES) == place


@pytest.mark.parametrize(
    "place",
    [
        "s3://bucket/in",
        "s3://bucket/inside/x",
        "s3://bucket/in/../out/x",
        "s3://bucket/in//x",
        "s3://bucket/in/%2e%2e/x",
        "s3://other/in/x",
        "az://all/x",
    ],
)
def test_any_other_address_is_forbidden(place: str, tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        allowed(place, tmp_path, STORES)


@pytest.mark.parametrize(
    "place",
    ["", "x" * (MAX_PLACE_CHARS + 1), "/in/\0", "/in/a\nb", "ftp://host/x", "s3://a:b@c/in/x"],
)
def test_what_is_no_place_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidInput, Forbidden)):
        allowed(place, tmp_path, STORES)
