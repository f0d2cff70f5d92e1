"""What a reload of the settings changes, and which settings it cannot change while the server runs."""

from __future__ import annotations

from batcher.config.settings import ServerSettings

LIVE = frozenset(
    {
        "model_repository",
        "model_control",
        "load_at_start",
        "sagemaker",
        "vertex_health_route",
        "vertex_predict_route",
        "strict_start",
        "drain_timeout_s",
        "max_body_bytes",
        "max_uri_bytes",
        "max_header_bytes",
        "header_timeout_s",
        "body_timeout_s",
        "min_body_rate",
        "idle_timeout_s",
        "write_timeout_s",
        "max_buffer_bytes",
        "max_connections",
        "max_pipelined_requests",
        "max_image_pixels",
        "switch_interval_ms",
        "access_log",
        "server_timing",
        "expose_model_errors",
        "quotas",
        "defaults",
        "models",
    }
)
"""Settings that a running server takes over.

Every other one needs a restart, and so does one that is not listed anywhere.
"""

AT_START = frozenset(
    {
        "host",
        "port",
        "unix_socket",
        "reuse_port",
        "tls_certificate",
        "tls_key",
        "grpc_port",
        "cpu_pool_threads",
        "cpu_pool_tasks",
        "cpu_pool_bytes",
    }
)
"""Settings of what is made once: sockets, and the pool that holds other requests' work."""

OF_THE_GRPC_PORT = frozenset({"max_body_bytes", "max_connections"})
"""Settings that gRPC's library is given when its port is opened."""


def changed_settings(old: ServerSettings, new: ServerSettings) -> list[str]:
    """Return the names of the settings that differ, in the order of the file."""
    return [
        name for name in ServerSettings.model_fields if getattr(old, name) != getattr(new, name)
    ]


def restart_reasons(old: ServerSettings, new: ServerSettings) -> list[str]:
    """Return, for each setting that differs and cannot change while the server runs, its place, what it is and what came."""
    live = LIVE - OF_THE_GRPC_PORT if old.grpc_port is not None else LIVE
    return [
        f"{new.origin(name)}: {name}: expected {getattr(old, name)!r} until the server is "
        f"restarted; got {getattr(new, name)!r}"
        for name in changed_settings(old, new)
        if name not in live
    ]
