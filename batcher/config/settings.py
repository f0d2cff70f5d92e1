"""What `config.yaml` may hold, and how its values, the environment and the flags are put together.

`config.yaml` in the repository holds every setting with its default and the reason for it. A test
keeps the defaults there and here equal. The type of a setting says when a changed value takes
effect: `Live[…]` at a reload, `AtStart[…]` at the next start (see `TakesEffect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, PrivateAttr

from batcher.config.job_settings import JobSettings
from batcher.config.memory_shares import PARTS, follow_memory
from batcher.config.model_file import ModelFile
from batcher.config.model_settings import ModelOverrides, ModelSettings
from batcher.config.places import levels_of_model_file
from batcher.config.quota import Quota
from batcher.config.reading import (
    Integer,
    Source,
    names_at,
    override_from_environment,
    override_from_platform,
    read_yaml,
    validate,
)
from batcher.config.values import (
    MIB,
    AtStart,
    Bytes,
    Count,
    FileMode,
    HostName,
    InputSource,
    Live,
    LiveWithoutGrpc,
    Milliseconds,
    Origin,
    OwnAddress,
    PrivateInputSource,
    QuotaKey,
    RegistryPlace,
    Repositories,
    RoutePath,
    Seconds,
    SecondsOrNone,
    Section,
    Ttl,
    ZeromqAddress,
    is_reached_from_elsewhere,
)
from batcher.core.cores import cores, memory_limit
from batcher.errors import ConfigError

_NONE: Mapping[str, Any] = MappingProxyType({})

MAX_PILLOW_PIXELS = 178_956_970
"""Pixels of a picture beyond which Pillow itself refuses to decode."""

MAX_FRONTS = 64
"""Processes that take connections: one engine is the bottleneck long before."""


class ServerSettings(Section):
    """All of `config.yaml`.

    Attributes:
        host: address to listen on.
        port: TCP port to listen on; 0 lets the system choose.
        unix_socket: path of a Unix socket to listen on, instead of host and port; relative to the
            configuration file.
        unix_socket_mode: permissions of that socket's file, in octal digits.
        reuse_port: whether other servers may listen on the same port, and share its connections.
        fronts: processes that take connections of HTTP, decode and encode, beside the process that
            holds the models; 0 has that process do it all. Programs that hold a server have none.
        tls_certificate: PEM file with the server's certificate and the certificates above it in its
            chain, for HTTPS; relative to the configuration file.
        tls_key: PEM file with the certificate's key; None if the certificate's file holds the key.
        model_repository: folder whose subfolders are models, relative to the configuration file; or
            the address of such a folder in a store (`s3://`, `gs://`, `az://`, `https://`); or a
            list of these. None serves the `models` with a path alone.
        store_cache: folder in which files from stores are kept, relative to the configuration file;
            several servers may share one. None is `batcher` below `XDG_CACHE_HOME` or `~/.cache`.
        store_cache_bytes: most bytes of that folder; versions that were used longest ago are
            removed, and never one that a server serves.
        watch_repository_s: seconds between looks for models that have come, gone or changed; 0
            looks only when the server is told to reload.
        model_control: `none` serves what the configuration names; `explicit` lets clients load and
            unload models.
        control_hosts: names, without a port, by which clients reach the server through a proxy when
            they load and unload models, besides `host` and `localhost`. Pages of these names may do
            the same in a browser.
        load_at_start: names of the models that are served from the start; None is all models.
        grpc_port: TCP port for gRPC, which needs the extra `grpc`; 0 lets the system choose; None
            serves no gRPC.
        zeromq: address for ZeroMQ, which needs the extra zeromq: `tcp://127.0.0.1:8082`, or
            `ipc://` and the path of a socket, relative to the configuration file; None serves no
            ZeroMQ. Addresses that other machines reach need `zeromq_key`.
        zeromq_key: file with the server's secret key for CURVE, as ZeroMQ's certificates are;
            relative to the configuration file.
        zeromq_clients: folder with the public certificates (`*.key`) of the clients that may
            connect; None lets in every client that has the server's public key.
        agent_check_port: TCP port on `host` on which HAProxy's `agent-check` learns the server's
            weight; None has no such port.
        registry: address of a registry in which the server is listed while it is ready, for clients
            that ask: `consul://`, `etcd://`, `zk://` or `directory://`; None has no such list.
        registry_ttl_s: seconds after which the registry forgets a server that has said nothing.
        advertise: address under which clients find the server, as a registry lists it; None is the
            one on which it listens, with this machine's own address where it listens on all.
        state_folder: folder for what outlives the server, as the states of trials of new versions;
            relative to the configuration file. It is made when it is needed.
        sagemaker: whether `GET /ping` and `POST /invocations` exist, for Amazon SageMaker.
        torchserve: whether TorchServe's `/predictions/NAME`, `/ping` and `/models` exist.
        vertex_health_route: path on which Google's Vertex AI asks whether the server is ready; None
            has no such route.
        vertex_predict_route: path on which Google's Vertex AI sends inputs; None has no such route.
        load_concurrency: models that load at once, on threads and in child processes together. In
            the server's own process never more than one loads.
        strict_start: whether the server ends when a model cannot be loaded at start.
        pre_stop_s: seconds for which the server goes on as before when it is to stop, but is no
            longer ready; 0 stops at once.
        drain_timeout_s: seconds that accepted requests have to finish once the server stops.
        max_body_bytes: most bytes of a body, also after decompression.
        max_uri_bytes: most bytes of a request target.
        max_header_bytes: most bytes of a request's head.
        header_timeout_s: seconds within which a request's head must arrive.
        body_timeout_s: seconds that a body has besides one second for each `min_body_rate` bytes:
            once n bytes have arrived, its limit is body_timeout_s + n / min_body_rate. With the
            defaults, a body of 1 MiB has 30 + 64 s.
        min_body_rate: slowest rate of a long body, in bytes a second.
        idle_timeout_s: seconds after which a connection without a request is closed.
        write_timeout_s: seconds after which a client that does not read its answers is cut off.
        max_buffer_bytes: most bytes of unfinished bodies and of unread answers, over all
            connections together.
        max_connections: most connections at a time.
        max_connection_age_s: seconds after which a connection ends with its next answer, a tenth
            less or more for each connection; 0 is never.
        max_pipelined_requests: most unanswered requests of one connection.
        max_image_pixels: most pixels of a decoded picture.
        cpu_pool_threads: threads for pictures, preprocess and postprocess; None is one for each
            core that the process may use.
        cpu_pool_tasks: most tasks that wait or run on those threads.
        cpu_pool_bytes: most bytes of bodies that wait or run on those threads.
        max_decoding_bytes: most bytes of large bodies and answers in text that wait for the process
            that reads and writes them, or are read and written there.
        switch_interval_ms: milliseconds for which a thread may keep the interpreter lock while
            another thread wants the lock; None chooses by the models.
        log_format: `text` writes the log for people; `json` writes one JSON object a line.
        access_log: whether each request is logged, one JSON object a line.
        server_timing: whether every answer carries `Server-Timing`, also without `X-Timing: 1`.
        expose_errors: whether clients read why a model is not ready, with paths and the text of
            exceptions; without it they read a reference to a line of the log.
        expose_model_errors: whether class and message of a model's exception reach the client.
        cors_origins: origins of the pages that may read answers, as `https://app.example`; `*` is
            every origin.
        input_sources: addresses, as `s3://photos/cats/` or `https://example.com/photos/`, below
            which clients may name files in place of inputs; none lets no client do that. A host
            must have public addresses alone.
        private_input_sources: the same, of web servers whose addresses may be private ones.
        input_fetches: most of those files that are fetched at a time; others wait.
        input_cache_bytes: most bytes of those files that are kept; what was used longest ago goes
            first.
        input_cache_ttl_s: seconds for which a file that is kept is used without asking whether it
            has changed; 0 asks each time.
        jobs: batch jobs that clients may have the server run; None for none.
        quotas: from a client's key, a secret, to the rows that the client may request; `*` is one
            quota for all requests together that have none of these keys.
        idempotency_ttl_s: seconds for which the answer to a request with an `Idempotency-Key` is
            kept, so that a repetition gets it and does not run again; 0 keeps none.
        idempotency_max_bytes: most bytes that those answers take; those that were used longest ago
            go first.
        defaults: settings of every model.
        models: from a model's name to its settings that differ from `defaults`.
    """

    host: AtStart[str] = "127.0.0.1"
    port: AtStart[Annotated[Integer, Field(ge=0, le=65_535)]] = 8080
    unix_socket: AtStart[str | None] = None
    unix_socket_mode: AtStart[FileMode] = "0660"
    reuse_port: AtStart[bool] = False
    fronts: AtStart[Annotated[Integer, Field(ge=0, le=MAX_FRONTS)]] = 0
    tls_certificate: AtStart[str | None] = None
    tls_key: AtStart[str | None] = None
    model_repository: Live[Repositories] = "models"
    store_cache: AtStart[str | None] = None
    store_cache_bytes: AtStart[Bytes] = ByteSize(64 << 30)
    watch_repository_s: Live[SecondsOrNone] = 0.0
    model_control: Live[Literal["none", "explicit"]] = "none"
    control_hosts: Live[tuple[HostName, ...]] = ()
    load_at_start: Live[tuple[str, ...] | None] = None
    grpc_port: AtStart[Annotated[Integer, Field(ge=0, le=65_535)] | None] = None
    zeromq: AtStart[ZeromqAddress | None] = None
    zeromq_key: AtStart[str | None] = None
    zeromq_clients: AtStart[str | None] = None
    agent_check_port: AtStart[Annotated[Integer, Field(ge=1, le=65_535)] | None] = None
    registry: AtStart[RegistryPlace | None] = None
    registry_ttl_s: AtStart[Ttl] = 10.0
    advertise: AtStart[OwnAddress | None] = None
    state_folder: AtStart[str] = "state"
    sagemaker: Live[bool] = False
    torchserve: Live[bool] = False
    vertex_health_route: Live[RoutePath | None] = None
    vertex_predict_route: Live[RoutePath | None] = None
    load_concurrency: Live[Count] = 1
    strict_start: Live[bool] = True
    pre_stop_s: Live[SecondsOrNone] = 0.0
    drain_timeout_s: Live[Seconds] = 30.0
    max_body_bytes: LiveWithoutGrpc[Bytes] = ByteSize(64 * MIB)
    max_uri_bytes: Live[Bytes] = ByteSize(8 << 10)
    max_header_bytes: Live[Bytes] = ByteSize(32 << 10)
    header_timeout_s: Live[Seconds] = 15.0
    body_timeout_s: Live[Seconds] = 30.0
    min_body_rate: Live[Bytes] = ByteSize(16 << 10)
    idle_timeout_s: Live[Seconds] = 620.0
    write_timeout_s: Live[Seconds] = 60.0
    max_buffer_bytes: Live[Bytes] = ByteSize(512 * MIB)
    max_connections: LiveWithoutGrpc[Count] = 16_384
    max_connection_age_s: LiveWithoutGrpc[SecondsOrNone] = 0.0
    max_pipelined_requests: Live[Count] = 64
    max_image_pixels: Live[Annotated[Integer, Field(ge=1, le=MAX_PILLOW_PIXELS)]] = 1 << 24
    cpu_pool_threads: AtStart[Count | None] = None
    cpu_pool_tasks: AtStart[Count] = 1024
    cpu_pool_bytes: AtStart[Bytes] = ByteSize(256 * MIB)
    max_decoding_bytes: AtStart[Bytes] = ByteSize(256 * MIB)
    switch_interval_ms: Live[Milliseconds | None] = None
    log_format: AtStart[Literal["text", "json"]] = "text"
    access_log: Live[bool] = False
    server_timing: Live[bool] = False
    expose_errors: Live[bool] = False
    expose_model_errors: Live[bool] = False
    cors_origins: Live[tuple[Origin, ...]] = ()
    input_sources: Live[tuple[InputSource, ...]] = ()
    private_input_sources: Live[tuple[PrivateInputSource, ...]] = ()
    input_fetches: AtStart[Count] = 16
    input_cache_bytes: Live[Bytes] = ByteSize(64 * MIB)
    input_cache_ttl_s: Live[SecondsOrNone] = 10.0
    jobs: AtStart[JobSettings | None] = None
    quotas: Live[dict[QuotaKey, Quota]] = Field(default_factory=dict, repr=False)
    idempotency_ttl_s: Live[SecondsOrNone] = 0.0
    idempotency_max_bytes: Live[Bytes] = ByteSize(64 * MIB)
    defaults: Live[ModelSettings] = ModelSettings()
    models: Live[dict[str, ModelOverrides]] = Field(default_factory=dict)
    _records = PrivateAttr(default_factory=dict[str, dict[str, Any]])
    _source = PrivateAttr(default_factory=lambda: Source({}, {(): "built-in settings"}))

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """The states of trials of new versions, by model, which decide what has to be loaded."""
        records: dict[str, dict[str, Any]] = self._records
        return records

    @property
    def has_canary(self) -> bool:
        """Whether a version of some model may be on trial."""
        return any(each.canary is not None for each in (self.defaults, *self.models.values()))

    def share_records(self, earlier: ServerSettings) -> None:
        """Have the records of the settings that were in force `earlier`, and change them both."""
        self._records = earlier._records

    def origin(self, *key: str) -> str:
        """Return the place where the setting at `key` was written, for error messages."""
        place: str = self._source.origin(key)
        return place

    @property
    def repositories(self) -> tuple[str, ...]:
        """The folders and stores of models, in the order in which they are looked at."""
        places = self.model_repository
        return () if places is None else (places,) if isinstance(places, str) else places

    def for_model(self, name: str, beside: Mapping[str, Any] = _NONE) -> ModelSettings:
        """Return the settings of the model called `name`: `defaults`, overridden by `models[name]`.

        `beside` are settings from a file beside the model, between the two.

        Raises:
            ConfigError: two of the settings contradict each other.
        """
        own = self.models.get(name)
        base = self.defaults.model_copy(update=beside) if beside else self.defaults
        if own is None:
            return self._consistent(("defaults",), base)
        overrides = {field: getattr(own, field) for field in own.model_fields_set - _OF_PATH}
        settings = base.model_copy(update=overrides)
        return self._consistent(("models", name), settings)

    def _consistent(self, section: tuple[str, ...], settings: ModelSettings) -> ModelSettings:
        """Return `settings`, or raise ConfigError about two that contradict each other."""
        if contradiction := settings.contradiction():
            name, expected, got = contradiction
            raise self._wrong((*section, name), expected, got)
        return settings

    def _wrong(self, key: tuple[str, ...], expected: str, got: object) -> ConfigError:
        place = self.origin(*key)
        return ConfigError(f"{place}: {'.'.join(key)}: expected {expected}; got {got}")


def load_settings(
    path: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[tuple[str, ...], tuple[str, object]] | None = None,
) -> ServerSettings:
    """Read the settings: the file, overridden by the environment, overridden by the flags.

    Args:
        path: the configuration file; None takes the built-in defaults.
        environment: a cloud platform's variables, overridden by `BATCHER_…` variables.
        flags: from a setting's path to the name of a flag and the value that it sets.

    Raises ConfigError: a value is wrong; the message names its place.
    """
    source = read_yaml(path) if path else Source({}, {(): "built-in settings"})
    override_from_platform(source, environment)
    override_from_environment(source, environment)
    for key, (flag, value) in (flags or {}).items():
        source.override(key, value, flag)
    follow_memory(source, _memory_limit(), _SIZES)
    settings = validate(ServerSettings, source, _ELSEWHERE)
    settings._source = source
    _check_zeromq(settings)
    _check_models(settings)
    return settings


@cache
def _memory_limit() -> int | None:
    """Return the memory limit of this process at its start: a reload must not find another one."""
    return memory_limit()


_SIZES = {
    key: (ModelSettings if len(key) > 1 else ServerSettings).model_fields[key[-1]].default
    for key in PARTS
}
"""Sizes that follow the memory, where there is enough of it."""

_OF_PATH = frozenset(ModelOverrides.model_fields) - frozenset(ModelSettings.model_fields)
"""What an entry of `models` says of where the model is, not of how it is run."""

_ELSEWHERE = {
    **dict.fromkeys(names_at(Quota), "below a key of `quotas`"),
    **{
        name: f"into the model.yaml of the model, beside the model's files, at {level}"
        for name, level in levels_of_model_file(ModelFile).items()
    },
    "path": "below `models` and the model's name",
    **{
        name: f"below `defaults` for all models, or below `models` and the model's name; on the "
        f"command line it is --set defaults.{name}=…"
        for name in names_at(ModelSettings)
    },
    "labels": "below `models` and the model's name where they are labels of versions; labels of "
    "classes belong into the model.yaml of the model, at an output",
    **dict.fromkeys(names_at(ServerSettings), "to the top of config.yaml"),
}
"""Where a setting belongs that stands in a section without it."""


def _check_zeromq(settings: ServerSettings) -> None:
    address = settings.zeromq
    if address is not None and settings.zeromq_key is None and is_reached_from_elsewhere(address):
        expected = "an address of this machine alone, or zeromq_key"
        raise settings._wrong(("zeromq",), expected, address)


def _check_models(settings: ServerSettings) -> None:
    settings.for_model("")  # no model has the empty name, so this checks the defaults
    reasons = []
    for name in settings.models:
        try:
            settings.for_model(name)
        except ConfigError as err:
            reasons.append(str(err))
    if reasons:
        raise ConfigError("\n".join(reasons))


def share_threads(settings: ModelSettings, instances: int) -> ModelSettings:
    """Return `settings` with `torch_threads` filled in where it is None.

        torch_threads = max(1, (cores - 1) // instances)

    `instances` are those of all models together. One core stays free for the event loop. With 8
    cores, one model of 2 instances and another of one, each of the 3 instances has 2 threads. An
    instance on Ray has the cores that Ray sets aside for it, and counts for nothing here.
    """
    if settings.torch_threads is not None:
        return settings
    threads = max(1, (cores() - 1) // max(instances, 1))
    if settings.worker == "ray":
        threads = settings.on_ray.threads
    return settings.model_copy(update={"torch_threads": threads})
