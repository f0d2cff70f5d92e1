"""What `config.yaml` may hold.

The reason for each default stands beside it there; a test keeps the two equal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, PrivateAttr

from batcher.config.model_settings import ModelOverrides, ModelSettings
from batcher.config.quota import Quota
from batcher.config.reading import (
    Integer,
    Source,
    override_from_environment,
    override_from_platform,
    read_yaml,
    validate,
)
from batcher.config.values import MIB, Bytes, Count, Milliseconds, QuotaKey, Route, Seconds, Section
from batcher.errors import ConfigError


class ServerSettings(Section):
    """All of `config.yaml`.

    Attributes:
        host: address to listen on.
        port: TCP port to listen on; 0 lets the system choose.
        unix_socket: path of a Unix socket to listen on instead of host and port; relative to the
            configuration file.
        reuse_port: whether several servers may listen on the same port, and the kernel shares
            connections among them.
        tls_certificate: PEM file with the server's certificate, and those it was signed by, for
            HTTPS; relative as above.
        tls_key: PEM file with its key; None if it stands in the same file.
        model_repository: folder whose subfolders are models; relative to the configuration file.
        model_control: `none` serves what the configuration names; `explicit` lets clients load and
            unload models.
        load_at_start: the models that are served from the start; None is all of them.
        grpc_port: TCP port for gRPC, which needs the extra `grpc`; 0 lets the system choose; None
            is none.
        sagemaker: whether `GET /ping` and `POST /invocations` are there, for Amazon SageMaker.
        vertex_health_route: path on which Google's Vertex AI asks whether the server is ready; None
            is none.
        vertex_predict_route: path to which it sends what is to be predicted; None is none.
        strict_start: whether a model that cannot be loaded ends the server.
        drain_timeout_s: seconds that accepted requests have to finish after a stop was asked for.
        max_body_bytes: most bytes of a body, also after decompression.
        max_uri_bytes: most bytes of a request target.
        max_header_bytes: most bytes of a request's head.
        header_timeout_s: seconds within which a request's head must arrive.
        body_timeout_s: seconds that a body may take besides what `min_body_rate` allows its bytes.
        min_body_rate: bytes/s that a body must arrive with at least.
        idle_timeout_s: seconds after which a connection without a request is closed.
        write_timeout_s: seconds after which a client that does not read its answers is cut off.
        max_buffer_bytes: most bytes of bodies that are being read and of answers that are not, on
            all connections together.
        max_connections: most connections at a time.
        max_pipelined_requests: most requests of one connection that are worked on at a time.
        max_image_pixels: most pixels of a picture, decoded.
        cpu_pool_threads: threads for pictures, preprocess and postprocess; None is one a core.
        cpu_pool_tasks: most tasks that may wait or run there.
        cpu_pool_bytes: most bytes of bodies that may wait or run there.
        switch_interval_ms: how long a thread may keep the interpreter lock that another wants, in
            milliseconds; None chooses by the models.
        access_log: whether each request is logged, one JSON object a line.
        server_timing: whether every answer carries `Server-Timing`, asked for or not.
        expose_model_errors: whether class and message of a model's exception reach the client.
        quotas: by key, a secret, how many rows it may ask for; `*` is for all requests without one
            of these keys together.
        defaults: settings of every model.
        models: settings of single models that differ from `defaults`.
    """

    host: str = "127.0.0.1"
    port: Annotated[Integer, Field(ge=0, le=65_535)] = 8080
    unix_socket: str | None = None
    reuse_port: bool = False
    tls_certificate: str | None = None
    tls_key: str | None = None
    model_repository: str = "models"
    model_control: Literal["none", "explicit"] = "none"
    load_at_start: tuple[str, ...] | None = None
    grpc_port: Annotated[Integer, Field(ge=0, le=65_535)] | None = None
    sagemaker: bool = False
    vertex_health_route: Route | None = None
    vertex_predict_route: Route | None = None
    strict_start: bool = True
    drain_timeout_s: Seconds = 30.0
    max_body_bytes: Bytes = ByteSize(64 * MIB)
    max_uri_bytes: Bytes = ByteSize(8 << 10)
    max_header_bytes: Bytes = ByteSize(32 << 10)
    header_timeout_s: Seconds = 15.0
    body_timeout_s: Seconds = 30.0
    min_body_rate: Bytes = ByteSize(16 << 10)
    idle_timeout_s: Seconds = 75.0
    write_timeout_s: Seconds = 60.0
    max_buffer_bytes: Bytes = ByteSize(1 << 30)
    max_connections: Count = 16_384
    max_pipelined_requests: Count = 64
    max_image_pixels: Annotated[Integer, Field(ge=1, le=178_956_970)] = (
        1 << 24
    )  # Pillow itself refuses more
    cpu_pool_threads: Count | None = None
    cpu_pool_tasks: Count = 1024
    cpu_pool_bytes: Bytes = ByteSize(256 * MIB)
    switch_interval_ms: Milliseconds | None = None
    access_log: bool = False
    server_timing: bool = False
    expose_model_errors: bool = False
    quotas: dict[QuotaKey, Quota] = Field(default_factory=dict, repr=False)
    defaults: ModelSettings = ModelSettings()
    models: dict[str, ModelOverrides] = Field(default_factory=dict)
    _source = PrivateAttr(default_factory=lambda: Source({}, {(): "built-in settings"}))

    def origin(self, *key: str) -> str:
        """Return the place where the setting at `key` was written, for messages about it."""
        place: str = self._source.origin(key)
        return place

    def for_model(self, name: str) -> ModelSettings:
        """Return the settings of the model called `name`.

        `defaults` with what `models` says of it laid over.

        Raises:
            ConfigError: two of its settings contradict each other.
        """
        own = self.models.get(name)
        update = (
            {field: getattr(own, field) for field in own.model_fields_set - {"path"}} if own else {}
        )
        settings = self.defaults.model_copy(update=update)
        self._check_together(("models", name) if own else ("defaults",), settings)
        return settings

    def _check_together(self, where: tuple[str, ...], settings: ModelSettings) -> None:
        levels = len(settings.level_weights)
        if settings.default_priority > levels:
            key = (*where, "default_priority")
            expected = f"1 to {levels}, a level"
            raise ConfigError(
                f"{self.origin(*key)}: {'.'.join(key)}: expected {expected}; got "
                f"{settings.default_priority}"
            )
        too_big = [
            size for size in settings.preferred_batch_sizes if size > settings.max_batch_size
        ]
        if too_big:
            key = (*where, "preferred_batch_sizes")
            expected = f"at most max_batch_size ({settings.max_batch_size})"
            raise ConfigError(
                f"{self.origin(*key)}: {'.'.join(key)}: expected {expected}; got {too_big}"
            )


def load_settings(
    path: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[tuple[str, ...], tuple[str, object]] | None = None,
) -> ServerSettings:
    """Read the configuration.

    The file, over it the variables of a cloud's platform, then ours, then the flags.

    Args:
        path: the configuration file; None takes the built-in defaults.
        environment: where `BATCHER_…` variables and those of a platform are looked for.
        flags: from a setting's path to the flag's name and the value it was given.

    Raises:
        ConfigError: a value is wrong; the message names its place.
    """
    source = read_yaml(path) if path else Source({}, {(): "built-in settings"})
    override_from_platform(source, environment)
    override_from_environment(source, environment)
    for key, (flag, value) in (flags or {}).items():
        source.override(key, value, flag)
    settings = validate(ServerSettings, source)
    settings._source = source
    settings.for_model("")
    _check_models(settings)
    return settings


def _check_models(settings: ServerSettings) -> None:
    reasons = []
    for name in settings.models:
        try:
            settings.for_model(name)
        except ConfigError as err:
            reasons.append(str(err))
    if reasons:
        raise ConfigError("\n".join(reasons))


def share_threads(settings: ModelSettings, models: int) -> ModelSettings:
    """Return `settings` with `torch_threads` filled in.

    The cores but one, for the event loop, shared among `models`.
    """
    if settings.torch_threads is not None:
        return settings
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return settings.model_copy(update={"torch_threads": max(1, (cores - 1) // max(models, 1))})
