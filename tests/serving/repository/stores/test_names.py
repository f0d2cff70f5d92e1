"""Names that would leave the folder of a version, or that no file can have, are refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import ConfigError
from batcher.serving.repository.stores.address import check_address, is_store
from batcher.serving.repository.stores.names import file_fault, names_fault
from batcher.serving.repository.stores.opening import open_store
from batcher.serving.repository.stores.secrets import without_secrets
from batcher.serving.repository.stores.store import StoredFile
from batcher.serving.repository.stores.versions import misnamed_in, versions_in
from tests.serving.repository.stores.conftest import ADDRESS


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../net.onnx", "leads out"),
        ("sub/../../net.onnx", "leads out"),
        ("/etc/passwd", "absolute"),
        ("sub//net.onnx", "without a name"),
        ("sub/", "without a name"),
        ("", "without a name"),
        ("./net.onnx", "a step up or none"),
        ("..\\net.onnx", "backslash"),
        ("C:net.onnx", "colon"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        (" net.onnx", "space"),
        ("net.onnx ", "space"),
        ("x" * 256, "255 bytes"),
        ("/".join("x" * 40), "folders inside each other"),
        ("\ud800.onnx", "UTF-8"),
    ],
)
def test_a_name_is_refused(name: str, why: str) -> None:
    assert why in file_fault(name)


@given(st.text(max_size=40))
def test_a_name_that_is_not_refused_stays_in_its_folder(name: str) -> None:
    if not file_fault(name):
        assert os.path.normpath(f"/folder/{name}") == f"/folder/{name}"
        assert Path("/folder", name).is_relative_to("/folder")


def test_usual_names_are_fine() -> None:
    assert not names_fault(["model.yaml", "net.onnx", "sub/été 1.txt", ".hidden", "a..b"])


def test_a_name_cannot_be_a_file_and_a_folder() -> None:
    assert "either a file or a folder" in names_fault(["a", "a/b"])


def test_a_name_that_an_index_has_twice_is_refused() -> None:
    assert "got 'net.onnx' twice" in names_fault(["net.onnx", "model.yaml", "net.onnx"])


def test_two_folders_of_one_number_are_left_out_and_the_other_versions_served() -> None:
    names = ["m/3/model.yaml", "m/03/model.yaml", "m/4/model.yaml"]
    found, faults = versions_in(ADDRESS, [StoredFile(name, 1, "") for name in names])
    assert [version.title for version in found] == ["m/4"]
    assert "expected one folder a version" in faults["m", "3"]


@pytest.mark.parametrize("folder", ["٣", "9" * 5000, "9" * 20, "²"])
def test_a_number_that_nobody_can_ask_for_is_no_version(folder: str) -> None:
    found, faults = versions_in(ADDRESS, [StoredFile(f"m/{folder}/model.yaml", 1, "")])
    assert not found
    assert not faults


def test_a_tag_that_is_no_utf_8_tells_contents_apart() -> None:
    tags = ("\ud800", "\ud801")
    versions = [versions_in(ADDRESS, [StoredFile("m/1/model.yaml", 1, tag)])[0] for tag in tags]
    assert len({found.digest for (found,) in versions}) == 2


def test_a_version_with_a_refused_name_is_left_out_and_the_others_are_served() -> None:
    names = ["m/1/model.yaml", "m/2/model.yaml", "m/2/../../../etc/cron.d/x", "n/1/model.yaml"]
    found, faults = versions_in(ADDRESS, [StoredFile(name, 1, "") for name in names])
    assert [version.title for version in found] == ["m/1", "n/1"]
    assert list(faults) == [("m", "2")]
    assert "../../../etc/cron.d/x" in faults["m", "2"]


@pytest.mark.parametrize("name", ["m//1/model.yaml", "m/../1/model.yaml", "m/./model.yaml"])
def test_a_model_is_left_out_whose_versions_nobody_can_tell(name: str) -> None:
    names = [name, "m/1/model.yaml", "n/1/model.yaml"]
    found, faults = versions_in(ADDRESS, [StoredFile(each, 1, "") for each in names])
    assert [version.title for version in found] == ["n/1"]
    assert f"got {name!r}" in faults["m", ""]


def test_versions_are_folders_of_numbers_or_the_folder_of_the_model() -> None:
    names = [
        "a/1/model.yaml",
        "a/02/model.yaml",
        "a/2.bak/model.yaml",
        "a/3/net.onnx",
        "a/1/",
        "b/model.yaml",
        "b/sub/net.onnx",
        "README",
        "_old/1/model.yaml",
    ]
    found, faults = versions_in(ADDRESS, [StoredFile(name, 1, "") for name in names])
    assert [(version.title, version.prefix) for version in found] == [
        ("a/1", "a/1"),
        ("a/2", "a/02"),
        ("b/1", "b"),
    ]
    assert [file.name for file in found[2].files] == ["model.yaml", "sub/net.onnx"]
    assert not faults


def test_folders_of_versions_whose_names_are_no_numbers_are_named() -> None:
    names = ["a/v7/model.yaml", "b/1/model.yaml", f"b/{'2' * 20}/model.yaml", "c/model.yaml"]
    names += ["c/v1/model.yaml", "d/v1/net.onnx", "_e/v1/model.yaml", "b/.old/model.yaml", "f/1/x"]
    found = misnamed_in([StoredFile(name, 1, "") for name in names])
    assert list(found) == [("a", "v7"), ("b", "2" * 20)]
    assert "got 'v7': rename it to 7" in found["a", "v7"]
    assert "rename it to a number of at most 19 digits" in found["b", "2" * 20]
    (of_model,) = misnamed_in([StoredFile("latest/model.yaml", 1, "")], "m")
    assert of_model == ("m", "latest")


def test_a_path_of_a_model_may_be_that_of_a_version() -> None:
    files = [StoredFile(name, 1, "") for name in ("model.yaml", "net.onnx")]
    (version,), _ = versions_in(ADDRESS, files, model="digits")
    assert (version.title, version.prefix) == ("digits/1", "")
    assert version.in_store(version.files[0]).name == "model.yaml"


@pytest.mark.parametrize("place", ["models", "/srv/models", "C:\\models", "./s3", "a:b"])
def test_a_folder_is_no_store(place: str) -> None:
    assert not is_store(place)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("s3://AKIA:s3cr3t@bucket/x", "without a password"),
        ("https://me:s3cr3t@example.com/x", "without a password"),
        ("az://container/x?sig=s3cr3t", "without a query"),
        ("https://example.com/x#s3cr3t", "without a query"),
        ("http://example.com/s3cr3t", "begins with s3://"),
        ("ftp://example.com/s3cr3t", "begins with s3://"),
        ("s3:///s3cr3t", "got no name"),
        ("https://[s3cr3t/x", "got no name"),
    ],
)
def test_a_wrong_address_is_refused_without_its_secret(address: str, why: str) -> None:
    assert is_store(address)
    with pytest.raises(ConfigError, match=why) as caught:
        check_address(address, "config.yaml:1: model_repository")
    assert "s3cr3t" not in str(caught.value)


def test_a_slash_at_the_end_of_an_address_changes_nothing() -> None:
    assert check_address("s3://bucket/models/", "x") == "s3://bucket/models"


def test_a_kind_in_capitals_is_the_kind() -> None:
    assert check_address("HTTPS://Host/Models/", "x") == "https://Host/Models"


def test_secrets_are_taken_out_of_errors() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "HOME": "/home/me"}
    text = without_secrets(
        "GET https://u:p4ss@host/x?sv=1&sig=abc%2F in /home/me\n\n  wJalrXUtnFEMI: Bearer ey.J0",
        environment,
    )
    assert text == "GET https://…@host/x?… in /home/me …: Bearer …"
    assert len(without_secrets("x" * 5000, {})) < 700


@pytest.mark.parametrize(
    "text",
    [
        "proxy http://me:s3cr3t@proxy:80/ refused",
        "proxy http://me:p@s3cr3t@proxy:80/ refused",
        "GET https://host/x?" + "a=1&" * 3000 + "X-Amz-Security-Token=s3cr3t timed out",
        "header authorization: Basic s3cr3t is refused",
        "header Authorization: Bearer s3cr3t is refused",
        "Credential=s3cr3t, SignedHeaders=host, Signature=s3cr3t",
    ],
)
def test_no_form_of_a_secret_is_shown(text: str) -> None:
    assert "s3cr3t" not in without_secrets(text, {})


def test_what_is_no_secret_is_shown() -> None:
    text = 'https://host/x: 404: <?xml version="1.0"?> <Code>NoSuchBucket</Code> at me@host'
    assert without_secrets(text, {}) == text


def test_a_bucket_without_the_extra_is_refused_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"expected the extra stores; .*pip install .*\[stores\]"):
        open_store("gs://bucket/models")
