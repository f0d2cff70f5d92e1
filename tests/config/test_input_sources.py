"""Prefixes below which clients may name files: what an operator may list."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.settings import load_settings
from batcher.errors import ConfigError


def load(folder: Path, text: str) -> object:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_settings(path, {})


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("input_sources", "photos/", "an address that begins with one of s3://"),
        ("input_sources", "s3://photos/../", "no step that leads to another folder"),
        ("input_sources", "https://127.0.0.1/", "or the prefix in private_input_sources"),
        ("input_sources", "https://[::1]/", "or the prefix in private_input_sources"),
        ("input_sources", "https://169.254.169.254/", "a host with a public address"),
        ("private_input_sources", "http://169.254.169.254/", "an address that is not link-local"),
        ("private_input_sources", "s3://photos/", "https:// or http://; where a bucket is"),
    ],
)
def test_a_prefix_that_means_nothing_safe_is_refused(
    tmp_path: Path, setting: str, value: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, f'{setting}: ["{value}"]')
    assert f"config.yaml:1: {setting}" in str(refused.value)
    assert says in str(refused.value)
    assert f"got '{value}'" in str(refused.value)


def test_a_password_in_a_prefix_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, "input_sources: ['https://user:hidden@example.com/']")
    assert "hidden" not in str(refused.value)


def test_a_private_host_is_listed_as_such(tmp_path: Path) -> None:
    load(tmp_path, "input_sources: [s3://photos, 'https://example.com/a/']")
    load(tmp_path, "private_input_sources: ['http://127.0.0.1:9000/', 'https://photos.internal/']")
