"""The address of ZeroMQ: what it may be, and that no other machine comes in without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError


def read(folder: Path, text: str) -> ServerSettings:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_settings(path, {})


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:8082", "tcp://127.0.0.1:0", "tcp://[::1]:8082", "ipc://a", "ipc:///run/a"],
)
def test_an_address_of_this_machine_needs_no_key(tmp_path: Path, address: str) -> None:
    assert read(tmp_path, f'zeromq: "{address}"').zeromq == address


@pytest.mark.parametrize("address", ["tcp://*:8082", "tcp://0.0.0.0:8082", "tcp://192.0.2.1:1"])
def test_an_address_that_others_reach_needs_a_key(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml:1: zeromq: expected .* or zeromq_key; got"):
        read(tmp_path, f'zeromq: "{address}"')
    assert read(tmp_path, f'zeromq: "{address}"\nzeromq_key: a.key_secret').zeromq == address


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "tcp://localhost:1", "tcp://127.0.0.1", "ipc://", "ipc://@a", "inproc://a"],
)
def test_what_is_no_address_is_refused_with_an_example(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"zeromq: expected tcp:// .* such as .*; got"):
        read(tmp_path, f'zeromq: "{address}"')
