"""Which settings a reload may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.changes import (
    GRPC_PORT_SETTINGS,
    LIVE_SETTINGS,
    START_SETTINGS,
    changed_settings,
    restart_reasons,
)
from batcher.config.settings import ServerSettings, load_settings

OTHERS = {
    "host": "0.0.0.0",
    "port": "9000",
    "unix_socket": "a.sock",
    "unix_socket_mode": '"0600"',
    "log_format": "json",
    "reuse_port": "true",
    "fronts": "2",
    "tls_certificate": "a.pem",
    "tls_key": "a.key",
    "state_folder": "elsewhere",
    "store_cache": "cache",
    "store_cache_bytes": "1KiB",
    "grpc_port": "8081",
    "zeromq": "ipc://a.zmq",
    "zeromq_key": "a.key_secret",
    "zeromq_clients": "clients",
    "agent_check_port": "8083",
    "registry": "consul://localhost/batcher",
    "registry_ttl_s": "20",
    "advertise": "http://10.0.0.7:8080",
    "cpu_pool_threads": "3",
    "cpu_pool_tasks": "7",
    "cpu_pool_bytes": "1KiB",
    "max_decoding_bytes": "1KiB",
    "input_fetches": "3",
    "jobs": "{inputs: [in]}",
}


def read(folder: Path, text: str) -> ServerSettings:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_settings(path, {})


def test_every_setting_is_known_to_change_live_or_to_need_a_restart() -> None:
    assert set(ServerSettings.model_fields) == LIVE_SETTINGS | START_SETTINGS
    assert not LIVE_SETTINGS & START_SETTINGS
    assert GRPC_PORT_SETTINGS <= LIVE_SETTINGS


def test_every_setting_that_needs_a_restart_has_another_value_here() -> None:
    assert set(OTHERS) == START_SETTINGS


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_setting_that_needs_a_restart_is_refused_with_its_place_what_it_is_and_what_came(
    tmp_path: Path, name: str
) -> None:
    old, new = ServerSettings(), read(tmp_path, f"access_log: true\n{name}: {OTHERS[name]}\n")
    was, came = getattr(old, name), getattr(new, name)
    assert restart_reasons(old, new) == [
        f"config.yaml:2: {name}: expected {was!r} until the server is restarted; got {came!r}"
    ]


def test_a_setting_that_is_left_out_counts_as_its_default(tmp_path: Path) -> None:
    old, new = read(tmp_path, "port: 9000\n"), read(tmp_path, "")
    (reason,) = restart_reasons(old, new)
    assert reason == "config.yaml: port: expected 9000 until the server is restarted; got 8080"


def test_what_the_open_grpc_port_was_given_needs_a_restart_and_without_one_does_not(
    tmp_path: Path,
) -> None:
    text = "max_body_bytes: 1KiB\nmax_connections: 3\nidle_timeout_s: 1\n"
    assert restart_reasons(ServerSettings(), read(tmp_path, text)) == []
    with_port = ServerSettings(grpc_port=0)
    reasons = restart_reasons(with_port, read(tmp_path, text + "grpc_port: 0\n"))
    assert [reason.split(": ")[1] for reason in reasons] == ["max_body_bytes", "max_connections"]
    zeromq = "zeromq: ipc://a.zmq\n"
    with_zeromq = read(tmp_path, zeromq)
    reasons = restart_reasons(with_zeromq, read(tmp_path, text + zeromq))
    assert [reason.split(": ")[1] for reason in reasons] == ["max_body_bytes", "max_connections"]


def test_what_changed_is_told_in_the_order_of_the_file_and_what_is_written_otherwise_is_the_same(
    tmp_path: Path,
) -> None:
    old = read(tmp_path, "max_body_bytes: 1KiB\n")
    assert (
        changed_settings(old, read(tmp_path, "# moved\nmax_body_bytes: 1024\ndefaults: {}\n")) == []
    )
    new = read(tmp_path, "defaults: {max_batch_size: 3}\naccess_log: true\n")
    assert changed_settings(old, new) == ["max_body_bytes", "access_log", "defaults"]
