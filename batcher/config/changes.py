"""What a reload of `config.yaml` changes, and which changes need a restart.

Each setting carries a mark in `config/settings.py` that says when a changed value takes effect (see
`TakesEffect`). The sets of names here are collected from those marks. A setting without a mark
needs a restart, which is always safe.
"""

from __future__ import annotations

from batcher.config.redis_address import without_passwords
from batcher.config.settings import ServerSettings
from batcher.config.values import TakesEffect


def _settings_marked(*marks: TakesEffect) -> frozenset[str]:
    fields = ServerSettings.model_fields.items()
    return frozenset(
        name for name, field in fields if any(mark in marks for mark in field.metadata)
    )


GRPC_PORT_SETTINGS = _settings_marked(TakesEffect.AT_RELOAD_WITHOUT_GRPC)
"""Settings that the libraries of gRPC and ZeroMQ receive when their ports are opened."""

LIVE_SETTINGS = _settings_marked(TakesEffect.AT_RELOAD) | GRPC_PORT_SETTINGS
"""Settings that a running server takes over."""

START_SETTINGS = _settings_marked(TakesEffect.AT_START)
"""Settings of what is made once at start: sockets, and the pool that holds work of requests."""


def changed_settings(old: ServerSettings, new: ServerSettings) -> list[str]:
    """Return the names of the settings that differ, in the order of the file."""
    return [
        name for name in ServerSettings.model_fields if getattr(old, name) != getattr(new, name)
    ]


def restart_reasons(old: ServerSettings, new: ServerSettings) -> list[str]:
    """Return one line for each setting that differs and needs a restart.

    A line names the place of the setting, its old value and its new value.
    """
    has_port = old.grpc_port is not None or old.zeromq is not None
    live = LIVE_SETTINGS - GRPC_PORT_SETTINGS if has_port else LIVE_SETTINGS
    return [
        without_passwords(
            f"{new.origin(name)}: {name}: expected {getattr(old, name)!r} until the server is "
            f"restarted; got {getattr(new, name)!r}"
        )
        for name in changed_settings(old, new)
        if name not in live
    ]
