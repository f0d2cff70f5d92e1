"""The file of a Unix socket: its permissions, whatever the umask of the process is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError
from batcher.frontends.listening.sockets import close_listeners, open_sockets


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(folder: Path, **settings: str) -> int:
    """Return the permissions of the file of a server's Unix socket."""
    listeners = open_sockets(ServerSettings(unix_socket="s", **settings), folder)
    try:
        return stat.S_IMODE((folder / "s").stat().st_mode)
    finally:
        close_listeners(listeners)


@pytest.mark.usefixtures("_umask")
def test_owner_and_group_may_connect(tmp_path: Path) -> None:
    assert mode_of(tmp_path) == 0o660


@pytest.mark.usefixtures("_umask")
def test_the_setting_says_who_may_connect(tmp_path: Path) -> None:
    assert mode_of(tmp_path, unix_socket_mode="600") == 0o600
    assert mode_of(tmp_path, unix_socket_mode="0666") == 0o666


@pytest.mark.parametrize("written", ["0660", "660", "rw-rw----", '"0999"', '"10660"', "true"])
def test_a_mode_that_yaml_may_read_as_another_number_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match='expected octal digits in quotes, such as "0660"'):
        load_settings(None, {"BATCHER_UNIX_SOCKET_MODE": written})
    assert load_settings(None, {"BATCHER_UNIX_SOCKET_MODE": '"0666"'}).unix_socket_mode == "0666"
