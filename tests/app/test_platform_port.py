"""A platform's `PORT` is for the server alone, not for those that other programs start."""

from __future__ import annotations

import pytest

from batcher.app import in_program
from batcher.app.tuning import child_server
from batcher.config.settings import ServerSettings


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the platform say where to listen."""
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("DYNO", "web.1")


def test_a_program_that_embeds_the_server_keeps_the_port_for_itself() -> None:
    found, default = in_program._settings({}, {}), ServerSettings()
    assert (found.host, found.port) == (default.host, default.port)


def test_servers_that_are_only_measured_listen_where_they_are_told() -> None:
    assert "PORT" not in child_server._environment()
