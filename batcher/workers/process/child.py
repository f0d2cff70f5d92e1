"""The child: loads a model and runs the batches that lie in its slots, one after the other.

The child is a fresh interpreter that imports nothing of the parent's program. Signals that a
supervisor like systemd sends to every process of a service are the parent's to answer: the child
ignores them, and ends when the connection is closed or when the parent ends.

`lifeline.py` says how a child notices the end of its parent.

A model may fork, and a copy of the child that comes back from the model must not go on as the
child: the copy would answer on the same connection, out of turn. Copies end before they speak,
listen or write into a slot.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import NoReturn

from batcher.batching.batch import Allocate
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error
from batcher.models.loading import import_format
from batcher.models.lost_devices import keep_if_lost
from batcher.workers.own_processes import end_all_processes
from batcher.workers.process.child_load import load_and_tell, load_done
from batcher.workers.process.described_error import describe_error
from batcher.workers.process.hook_server import HookServer
from batcher.workers.process.lifeline import end_group, end_with_parent, ignore_group_signals
from batcher.workers.process.messages import BatchDone, BatchFailed, Prepare, RunBatch, send
from batcher.workers.shared_memory.packing import Packer, unpack
from batcher.workers.shared_memory.slots import Slot


def main(fd: int, slots: Sequence[int], parent: int, lifeline: int) -> None:
    """Be a child, from start to end. Main thread of the child.

    Args:
        fd: socket to the parent.
        slots: files whose memory is shared with the parent.
        parent: process id of the parent.
        lifeline: pipe that nobody writes to; the parent holds the other end until it ends.
    """
    pid, error = os.getpid(), None
    # What the model prints comes out at once, and a crash loses nothing of it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    try:
        _be_child(fd, slots, end_with_parent(parent, lifeline))
    # KeyboardInterrupt while the model loads, too, and descriptors that the model closed.
    except BaseException as err:
        error = err
    if os.getpid() == pid:
        end_all_processes()
        atexit._run_exitfuncs()  # those of the model, which may have files to remove
    _leave(error)


def _be_child(fd: int, slots: Sequence[int], parent_fd: int) -> None:
    """Load the model and run batches until there are no more. Main thread of the child."""
    # Programs that the model starts must not hold the connection and the memory.
    for inherited in (fd, *slots):
        os.set_inheritable(inherited, False)
    with Connection(fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        to_parent = ParentConnection(connection, parent_fd)
        model = _load(to_parent)
        if model is not None:
            serve(to_parent, model, [Slot(slot) for slot in slots])


class ParentConnection:
    """The connection to the parent, for the process that makes this object.

    A copy of that process ends when the copy would use the connection.
    """

    def __init__(self, connection: Connection, parent_fd: int) -> None:
        """Speak and listen on `connection`.

        `parent_fd` is a descriptor that can be read from when the parent has ended.
        Main thread of the child.
        """
        self._connection = connection
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)
        self._poller.register(parent_fd, select.POLLIN)
        self._parent_fd = parent_fd
        self._pid = os.getpid()

    def recv(self) -> object:
        """Return the next message; end this process and its group if the parent has ended.

        Main thread of the child.
        """
        self.end_copies()
        if any(fd == self._parent_fd for fd, _ in self._poller.poll()):
            end_group()
        return self._connection.recv()

    def send(self, message: object) -> None:
        """Send `message`. Main thread of the child."""
        self.end_copies()
        send(self._connection, message)

    def send_socket(self, line: socket.socket) -> None:
        """Send the descriptor of `line`. Main thread of the child."""
        send_handle(self._connection, line.fileno(), os.getppid())

    def end_copies(self) -> None:
        """End this process if it is a copy, as the exception on its way would have. Any thread."""
        if os.getpid() != self._pid:
            _leave(sys.exc_info()[1])


def _leave(error: BaseException | None) -> NoReturn:
    """End this process as `error` would have ended it, but at once.

    To take a framework apart takes a second. Main thread of the child.
    """
    with suppress(Exception):  # a model may have closed these
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status_of(error))


def status_of(error: BaseException | None) -> int:
    """Return the status with which a process exits that `error` ends. Any thread."""
    code = error.code if isinstance(error, SystemExit) else error
    return code if isinstance(code, int) else int(code is not None)


def _load(to_parent: ParentConnection) -> CheckedModel | None:
    """Import what the model needs, load the model when ordered to, and report how that went.

    Main thread of the child.
    """
    prepare = to_parent.recv()
    assert isinstance(prepare, Prepare)
    with suppress(Exception):  # loading will say so
        import_format(prepare.definition)
    if to_parent.recv() is None:
        return None
    model = load_and_tell(prepare, to_parent.send)
    if model is None:
        return None
    ignore_group_signals()  # again: the model may have set handlers of its own
    model.copies_outputs = False  # they are copied into the slot before the model runs again
    _report_loaded(to_parent, model, prepare.settings.finite_outputs)
    return model


def _report_loaded(to_parent: ParentConnection, model: CheckedModel, finite_outputs: bool) -> None:
    """Tell what loading has shown, and serve the hooks of `model` if it has any.

    Main thread of the child.
    """
    done = load_done(model)
    to_parent.send(done)
    if done.hooks:
        with HookServer(model, finite_outputs, to_parent.end_copies).start() as line:
            to_parent.send_socket(line)


def serve(to_parent: ParentConnection, model: CheckedModel, slots: Sequence[Slot]) -> None:
    """Run batch after batch, until the parent has no more or the device is lost.

    Main thread of the child.
    """
    while isinstance(task := to_parent.recv(), RunBatch):
        answer, is_lost = run(to_parent, model, task, slots[task.slot])
        to_parent.send(answer)
        if is_lost:
            return
        del task, answer  # nothing of a finished batch is kept while the child waits


def run(
    to_parent: ParentConnection, model: CheckedModel, task: RunBatch, slot: Slot
) -> tuple[BatchDone | BatchFailed, bool]:
    """Run one batch; return the answer to the parent, and whether the device is lost.

    Main thread of the child.
    """
    try:
        slot.reserve(task.end)
        inputs = unpack(task.table, slot.memory)
        try:
            outputs, failed = model.predict(
                lambda allocate: _collated(inputs, allocate if model.model.own_buffers else None),
                task.rows,
            )
        finally:
            to_parent.end_copies()  # a copy that the model forked must not write into the slot
        packer = Packer(slot, task.end)
        table = packer.table(outputs)
        described = {row: describe_error(error) for row, error in failed.items()}
        work = model.work_done()
        return BatchDone(task.number, table, packer.end, described, work), False
    except BaseException as err:  # a model that calls sys.exit() must not end the child either
        error = device_error(err)
        return BatchFailed(task.number, describe_error(error)), keep_if_lost(error, model)


def _collated(inputs: dict[str, Array], allocate: Allocate | None) -> dict[str, Array]:
    """Return the inputs as the model takes them.

    They lie in the slot itself, which the next batches use again, or in buffers of the model's: its
    device reads faster from those, or its code may keep them. Main thread of the child.
    """
    if allocate is None:
        return inputs
    buffers = {}
    for name, array in inputs.items():
        buffers[name] = allocate(name, array.shape, array.dtype)
        buffers[name][...] = array
    return buffers
