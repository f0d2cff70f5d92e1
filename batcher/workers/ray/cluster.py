"""The small part of Ray that is used here: connect, start an actor, call it, end it.

Ray is imported when the first model asks for it, and connects once for the whole process. The
process is a driver of Ray: when the process ends, however suddenly, Ray ends its actors.

What to beware of:

- `ray.init` waits for the cluster, and on the main thread takes the handler of SIGTERM, which is
  the server's. Here it runs on the thread of an actor's child.
- Once Ray has lost the head of the cluster for a minute, Ray ends the process, from C++. Other
  models may be served there, so Ray is told to wait for the head. Then whatever asks a head that is
  not there waits as long, so it is found out before whether somebody listens at its address.
- Ray repeats calls and restarts actors by itself if told to. It is told not to: a batch that was
  begun twice may do harm, and the supervision restarts.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from socket import create_connection
from threading import Lock
from typing import Any, Protocol

from batcher.config.ray_settings import RaySettings
from batcher.core.error_text import cut, message
from batcher.core.installing import how_to_install
from batcher.errors import ModelLoadError
from batcher.workers.daemon_threads import start_daemon
from batcher.workers.ray.actor import ModelActor
from batcher.workers.ray.messages import GROUPS

HEAD_WAIT_S = 10**6
"""Seconds that Ray waits for the head of the cluster to come back: eleven days, for ever."""

CONNECT_TIMEOUT_S = 5.0
"""Seconds for a connection to the head of the cluster, which is on the same network."""

_MAX_REASON_CHARS = 600
"""Characters of what Ray says of an actor's end: it ends with a list of what it might have been."""

_LEFT_OUT = ("class_name:", "actor_id:", "namespace:", "name:")
"""Lines of Ray's errors that tell an operator nothing."""


class Actor(Protocol):
    """A model in an actor."""

    def call(self, method: str, *arguments: object, group: str = "") -> Future[Any]:
        """Call a method of the actor; the Future fails if the actor ends before it answers.

        Raises what keeps the arguments from being sent. Any thread.
        """

    def kill(self) -> None:
        """End the actor now, if it has not ended. Child thread."""


class Cluster(Protocol):
    """Where actors are started."""

    def start(self, *arguments: object) -> Actor:
        """Make a `ModelActor` with these arguments, on the node that Ray chooses.

        Returns at once where the cluster is reached; calls of the actor wait for a node.

        Raises:
            ModelLoadError: there is no cluster.

        Child thread.
        """


class RayCluster:
    """The cluster of the settings, and what an actor takes there."""

    def __init__(self, settings: RaySettings) -> None:
        """Connect to nothing yet. Any thread."""
        self._settings = settings

    def start(self, *arguments: object) -> Actor:
        """Start an actor, as `Cluster` says. Child thread."""
        wanted = self._settings
        ray = _connected(wanted.address)
        make = ray.remote(
            num_cpus=wanted.num_cpus,
            num_gpus=wanted.num_gpus,
            resources=dict(wanted.resources),
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups=dict(GROUPS),
        )
        return _RayActor(ray, make(ModelActor).remote(*arguments))


class _RayActor:
    """An actor of Ray."""

    def __init__(self, ray: Any, handle: Any) -> None:
        """Call the actor of `handle`. Child thread."""
        self._ray = ray
        self._handle = handle

    def call(self, method: str, *arguments: object, group: str = "") -> Future[Any]:
        """Call a method, as `Actor` says. Any thread."""
        called = getattr(self._handle, method)
        if group:
            called = called.options(concurrency_group=group)
        answer: Future[Any] = called.remote(*arguments).future()
        return answer

    def kill(self) -> None:
        """End the actor. Child thread."""
        # Beside: for an actor that waits for a node, Ray asks the head of the cluster, and waits
        # for the answer until the head is back.
        start_daemon(self._kill, "batcher-ray-kill")

    def _kill(self) -> None:
        """End the actor, and wait until Ray has heard of it. A thread of its own."""
        with suppress(Exception):  # Ray may have lost the cluster, and with it the actor
            self._ray.kill(self._handle, no_restart=True)


def reason_in(error: BaseException) -> str:
    """Return in one line why a call of an actor has failed. Any thread."""
    lines = [line.strip() for line in message(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_LEFT_OUT)]
    return cut(" ".join(told) or type(error).__name__, _MAX_REASON_CHARS)


_WITHOUT = (
    "ray.address: expected a cluster of Ray that this machine is a node of, at {} (`ray start` "
    "makes it one); got none"
)

_connecting = Lock()
_address = ""  # that this process is connected to


def _connected(address: str) -> Any:
    """Return the module `ray`, connected to the cluster at `address`; raises ModelLoadError.

    A program that is connected already, and embeds the server, stays as it is. Child thread.
    """
    global _address
    with _connecting:
        ray = _imported()
        is_connected = ray.is_initialized()
        if is_connected and not _address:
            return ray
        if is_connected and address != _address:
            raise ModelLoadError(
                f"ray.address: expected {_address}, to which this process is connected for another "
                f"model; got {address}"
            )
        try:
            _check_reachable(address)
            if not is_connected:
                ray.init(address=address, configure_logging=False, log_to_driver=True)
        except Exception as err:
            raise ModelLoadError(f"{_WITHOUT.format(address)}: {reason_in(err)}") from err
        _address = address
        return ray


def _check_reachable(address: str) -> None:
    """Raise OSError unless somebody listens where the head of the cluster is. Child thread."""
    # What `ray.init` does with an address, `auto` and RAY_ADDRESS included; there is no public way.
    services = import_module("ray._private.services")
    found: str = services.canonicalize_bootstrap_address_or_die(address)
    host, _, port = found.rpartition(":")
    create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()


def _imported() -> Any:
    """Return the module `ray`; raises ModelLoadError. Child thread."""
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEAD_WAIT_S))
    try:
        ray = import_module("ray")
    except ModuleNotFoundError as err:
        raise ModelLoadError(
            f"worker: expected the extra ray for `worker: ray`; got none: {err}. It comes with "
            f"{how_to_install('ray')}"
        ) from err
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns of a SIGTERM that it may not take
    return ray
