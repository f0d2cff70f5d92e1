"""The small part of Ray that is used here: start an actor, call it, end it.

What to beware of: Ray repeats calls and restarts actors by itself if told to. It is told not to: a
batch that was begun twice may do harm, and the supervision restarts.
"""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from batcher.config.ray_settings import RaySettings
from batcher.workers.daemon_threads import start_daemon
from batcher.workers.ray.actor import ModelActor
from batcher.workers.ray.connection import Connection, connected
from batcher.workers.ray.messages import GROUPS


class Actor(Protocol):
    """A model in an actor."""

    def call(self, method: str, *arguments: object, group: str = "") -> Future[Any]:
        """Call a method of the actor; the Future fails if the actor ends before it answers.

        Raises what keeps the arguments from being sent. Any thread.
        """

    def is_lost(self) -> bool:
        """Return whether nothing can be heard of the actor any more. Child thread."""

    def kill(self) -> None:
        """End the actor now, if it has not ended. Child thread."""


class Cluster(Protocol):
    """Where actors are started."""

    def start(self, *arguments: object) -> Actor:
        """Make a `ModelActor` with these arguments, on the node that Ray chooses.

        Calls of the actor wait for a node. Ray ends an actor that nobody holds on to.

        Raises:
            ModelLoadError: there is no cluster.

        Asking thread.
        """


class RayCluster:
    """The cluster of the settings, and what an actor takes there."""

    def __init__(self, settings: RaySettings) -> None:
        """Connect to nothing yet. Any thread."""
        self._settings = settings

    def start(self, *arguments: object) -> Actor:
        """Start an actor, as `Cluster` says. Asking thread."""
        wanted = self._settings
        connection = connected(wanted.address)
        make = connection.ray.remote(
            num_cpus=wanted.num_cpus,
            num_gpus=wanted.num_gpus,
            resources=dict(wanted.resources),
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups=dict(GROUPS),
        )
        return _RayActor(connection, make(ModelActor).remote(*arguments))


class _RayActor:
    """An actor of Ray."""

    def __init__(self, connection: Connection, handle: Any) -> None:
        """Call the actor of `handle` over `connection`. Asking thread."""
        self._connection = connection
        self._handle = handle

    def call(self, method: str, *arguments: object, group: str = "") -> Future[Any]:
        """Call a method, as `Actor` says. Any thread."""
        called = getattr(self._handle, method)
        if group:
            called = called.options(concurrency_group=group)
        return self._connection.call(lambda: called.remote(*arguments).future())

    def is_lost(self) -> bool:
        """Return whether the node has ended over which the actor is called. Child thread."""
        return self._connection.is_lost()

    def kill(self) -> None:
        """End the actor. Child thread."""
        if not self.is_lost():  # else the actor has ended with it
            # Beside: for an actor that waits for a node, Ray asks the head of the cluster, and
            # waits for the answer until the head is back.
            start_daemon(self._kill, "batcher-ray-kill")

    def _kill(self) -> None:
        """End the actor, and wait until Ray has heard of it. A thread of its own."""
        with suppress(Exception):  # Ray may have lost the cluster, and with it the actor
            self._connection.ray.kill(self._handle, no_restart=True)
