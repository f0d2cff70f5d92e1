"""Calls of hooks that run in a child; `hook_server.py` is the other end.

A child may end at any time, and another takes its place. A call that waits then fails with
WorkerLost. So does a call while no child has a loaded model, and its client may send the request
again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from threading import Lock

from batcher.core.spec import Array
from batcher.errors import WorkerLost
from batcher.models.model_errors import model_error
from batcher.models.protocol import Arrays, Hook, LoadedModel, RemoteHook
from batcher.workers.process.described_error import DescribedError, rebuild_error
from batcher.workers.process.messages import POSTPROCESS, PREPROCESS, HookDone, RunHook, send


class HookLine:
    """The way to the hooks of one child, for any number of threads at once."""

    def __init__(self, fd: int) -> None:
        """Get connections through the socket `fd`, which the child has given. Child thread."""
        self._line = socket.socket(fileno=fd)
        # Connections that no thread uses; guarded, like the end, by the lock.
        self._idle: list[Connection] = []
        self._closed = False
        self._lock = Lock()

    def run(self, task: RunHook) -> HookDone:
        """Have the child run `task`, and return what its hook has made.

        Raises:
            BatcherError: what the hook raised, or WorkerLost: the child has ended.

        Pool thread.
        """
        # The model has run before `postprocess`, and no client shall have it run again.
        begun, connection = task.hook != PREPROCESS, None
        try:
            connection = self._take()
            send(connection, task)
            begun = True
            answer = connection.recv()
        # Also what unpickling raises: something else wrote into the connection.
        except Exception as err:
            if connection is not None:
                connection.close()
            raise WorkerLost("the worker that runs the model's hooks was lost", begun) from err
        self._give_back(connection)
        if isinstance(answer, DescribedError):
            raise model_error(rebuild_error(answer))
        assert isinstance(answer, HookDone)
        return answer

    def close(self) -> None:
        """Let go of everything: the child has ended. Child thread."""
        with self._lock:
            self._closed = True
            self._line.close()
            for connection in self._idle:
                connection.close()

    def _take(self) -> Connection:
        """Return a connection that no other thread uses. Raises OSError. Pool thread."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            ours, its = socket.socketpair()
            with its:
                connection = Connection(ours.detach())
                try:
                    socket.send_fds(self._line, [b"c"], [its.fileno()])
                except OSError:
                    connection.close()
                    raise
            return connection

    def _give_back(self, connection: Connection) -> None:
        """Keep `connection` for the next call. Pool thread."""
        with self._lock:
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)


class ChildHook(RemoteHook):
    """A hook of one child."""

    def __init__(self, run: Callable[[RunHook], HookDone], name: str) -> None:
        """Have `run` run the hook called `name`. Child thread."""
        self._run = run
        self._name = name

    def run(self, values: Arrays, rows: int) -> tuple[dict[str, Array], int]:
        """Run the hook for one request, as `RemoteHook` says. Pool thread."""
        done = self._run(RunHook(self._name, dict(values), rows))
        return done.values, done.rows


class Relays:
    """The hooks of whatever child has the model now. Reactor thread."""

    def __init__(self) -> None:
        """Lead to no child yet."""
        self._hooks: dict[str, RelayedHook] = {}

    def relayed(self, loaded: LoadedModel) -> LoadedModel:
        """Have calls go to the child that has `loaded` the model; return it with these hooks."""
        return loaded._replace(
            preprocess=self._relayed(PREPROCESS, loaded.preprocess),
            postprocess=self._relayed(POSTPROCESS, loaded.postprocess),
        )

    def _relayed(self, name: str, hook: Hook | RemoteHook | None) -> RemoteHook | None:
        if not isinstance(hook, RemoteHook):
            return None
        relay = self._hooks.setdefault(name, RelayedHook(hook))
        relay.hook = hook
        return relay


class RelayedHook(RemoteHook):
    """A hook of whatever child has the model now.

    Attributes:
        hook: the hook of that child.
    """

    def __init__(self, hook: RemoteHook) -> None:
        """Begin with the `hook` of the first child. Reactor thread."""
        self.hook = hook

    def run(self, values: Arrays, rows: int) -> tuple[dict[str, Array], int]:
        """Run the hook for one request, as `RemoteHook` says. Pool thread."""
        return self.hook.run(values, rows)


class SharedHook(RemoteHook):
    """The hook of several instances, which take requests in turn.

    An instance whose child has ended is passed over. Instances may come and go, all but the last.
    """

    def __init__(self, hooks: list[RemoteHook]) -> None:
        """Run each request by one of `hooks`. Reactor thread."""
        self._hooks = hooks
        self._turns = count()

    def add(self, hook: RemoteHook) -> None:
        """Have `hook` run requests, too. Reactor thread."""
        # A new list: a thread may be between two of the old one.
        self._hooks = [*self._hooks, hook]

    def remove(self, hook: RemoteHook) -> None:
        """Give `hook` no more requests. Reactor thread."""
        self._hooks = [each for each in self._hooks if each is not hook]

    def run(self, values: Arrays, rows: int) -> tuple[dict[str, Array], int]:
        """Run the hook for one request, as `RemoteHook` says. Pool thread."""
        first, hooks = next(self._turns), self._hooks
        for turn in range(first, first + len(hooks) - 1):
            try:
                return hooks[turn % len(hooks)].run(values, rows)
            except WorkerLost as err:
                if err.begun:
                    raise
        return hooks[(first - 1) % len(hooks)].run(values, rows)
