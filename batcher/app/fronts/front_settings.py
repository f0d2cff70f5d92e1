"""The settings that a front goes by: those that it needs, and no secret.

Fronts check no key of a client and reach no Redis and no registry; the engine does. So they get
none of `quotas`, the `secret` and `store` of caches, `registry`, addresses of models, or the text
of the file. They need no key to fetch `input_sources` either: such an address has no user and no
password, and what a bucket asks for comes from the environment, as in one process.

What a front does not get it does not have: to read such a setting there is an AttributeError. A
default in its place could be taken for the operator's wish.

This is no wall around a front. A front is a copy of the process that has read the file, and runs as
the same user; like every process of the server, it has the command line and the environment that
the server was started with. Nothing is added to them, and no file is written.
"""

from __future__ import annotations

from typing import Final

from batcher.config.reading import Source
from batcher.config.settings import ServerSettings

_OF_CONNECTIONS: Final = (
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
    "max_connection_age_s",
    "max_pipelined_requests",
    "tls_certificate",
    "tls_key",
)
_OF_ROUTES: Final = (
    "host",
    "control_hosts",
    "cors_origins",
    "sagemaker",
    "torchserve",
    "vertex_health_route",
    "vertex_predict_route",
    "server_timing",
    "expose_errors",
    "expose_model_errors",
)
_OF_DECODING: Final = (
    "max_image_pixels",
    "cpu_pool_threads",
    "cpu_pool_tasks",
    "cpu_pool_bytes",
    "max_decoding_bytes",
    "input_sources",
    "private_input_sources",
    "input_fetches",
    "input_cache_bytes",
    "input_cache_ttl_s",
)
_OF_THE_PROCESS: Final = ("log_format", "access_log", "switch_interval_ms")

NEEDED: Final = frozenset((*_OF_CONNECTIONS, *_OF_ROUTES, *_OF_DECODING, *_OF_THE_PROCESS))
"""The settings that a front reads. Of `tls_key` that is the path of a file, which fronts read."""


def for_fronts(settings: ServerSettings) -> ServerSettings:
    """Return those of `settings` that a front needs, with the places where they were written."""
    found = ServerSettings.model_construct(**{name: getattr(settings, name) for name in NEEDED})
    for name in set(vars(found)) - NEEDED:
        del vars(found)[name]
    found._source = Source({}, {(name,): settings.origin(name) for name in NEEDED})
    return found
