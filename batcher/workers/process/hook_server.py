"""The hooks of a model in a child: they run on the object that was loaded, as on a thread.

    pool thread of the parent            thread of the child
    RunHook -------------------------->  run_preprocess or run_postprocess
    HookDone or DescribedError <-------

Each pool thread of the parent has a connection of its own, and each connection a thread here. So
hooks run beside each other and beside `predict`, as many at once as the parent has threads for. A
new connection comes as a descriptor, through a socket that was given to the parent when the model
was loaded: the main thread cannot take it, because a batch may keep that thread for minutes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread

from batcher.models.checked import CheckedModel
from batcher.models.hook_contract import run_postprocess, run_preprocess
from batcher.workers.process.described_error import DescribedError, describe_error
from batcher.workers.process.messages import PREPROCESS, HookDone, RunHook, send


class HookServer:
    """Runs the hooks of one model for the parent."""

    def __init__(
        self, model: CheckedModel, finite_outputs: bool, end_copies: Callable[[], None]
    ) -> None:
        """Run the hooks of `model`, which is loaded; nothing starts.

        With `finite_outputs` a `postprocess` that returns NaN or infinity fails. `end_copies` ends
        a process that a hook has forked. Main thread of the child.
        """
        self._model = model
        self._finite_outputs = finite_outputs
        self._end_copies = end_copies

    def start(self) -> socket.socket:
        """Serve, and return the socket that takes connections, for the parent.

        Main thread of the child.
        """
        ours, its = socket.socketpair()
        Thread(target=self._accept, args=(ours,), name="batcher-hooks", daemon=True).start()
        return its

    def _accept(self, line: socket.socket) -> None:
        """Give each connection that comes through `line` a thread. Thread of its own."""
        with line, suppress(OSError):
            while True:
                said, fds, _, _ = socket.recv_fds(line, 1, 1)
                if not said:
                    return
                for fd in fds:
                    arguments = (Connection(fd),)
                    Thread(target=self._serve, args=arguments, daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """Run hook after hook. Thread of its own."""
        with connection, suppress(EOFError, OSError):
            while True:
                task = connection.recv()
                answer = run_hook(self._model, self._finite_outputs, task)
                self._end_copies()
                send(connection, answer)
                del task, answer  # nothing of a request is kept while the thread waits


def run_hook(model: CheckedModel, finite_outputs: bool, task: RunHook) -> HookDone | DescribedError:
    """Run one hook of `model` for one request; never raises. Any thread."""
    plain = model.model
    try:
        if task.hook == PREPROCESS:
            assert plain.preprocess is not None
            return HookDone(*run_preprocess(plain.preprocess, task.values, plain.spec))
        assert plain.postprocess is not None
        arguments = task.values, plain.spec, task.rows, finite_outputs
        return HookDone(run_postprocess(plain.postprocess, *arguments), task.rows)
    # Whatever the hook raised: it ends its own request alone.
    except BaseException as err:
        return describe_error(err)
