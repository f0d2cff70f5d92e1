"""The child: loads a model, runs the batches that lie in its slots, one after the other, and ends when its parent does.

It is a fresh interpreter that imports nothing of the parent's program. Signals that are sent to all
of a service, as by systemd, are the parent's to answer; the child ends when the connection is
closed, or is killed.

A model may fork, and a copy of the child that comes back from it must not go on as the child: it
would answer on the same connection, out of turn. Copies end before they speak, listen or write into
a slot.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from fcntl import F_GETFL, F_SETFL, F_SETOWN, F_SETSIG, fcntl
from multiprocessing.connection import Connection
from typing import NoReturn

from batcher.batching.batch import Allocate
from batcher.core.spec import Array
from batcher.errors import DeviceLost, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error
from batcher.models.loading import import_format, load_model
from batcher.workers.process.child_process import group_signals
from batcher.workers.process.messages import Doing, Done, Failed, Prepare, Ready, Refused, Run, send
from batcher.workers.process.told_error import tell
from batcher.workers.shared_memory.packing import Packer, unpack
from batcher.workers.shared_memory.slots import Slot

_PR_SET_PDEATHSIG = 1


def main(fd: int, slots: Sequence[int], parent: int, rope: int) -> None:
    """Be the child of the process `parent`, which is at the other end of the socket `fd` and shares the files `slots`.

    `rope` is a pipe that the parent never writes to: it holds the other end until it ends, however
    that is.
    """
    pid, error = os.getpid(), None
    try:
        _be_child(fd, slots, _end_with(parent, rope))
    except (
        BaseException
    ) as err:  # of a model too: KeyboardInterrupt while it loads, descriptors that it closed
        error = err
    if os.getpid() == pid:
        atexit._run_exitfuncs()  # those of the model, which may have files to remove
    _leave(error)


def _be_child(fd: int, slots: Sequence[int], parent: int) -> None:
    for inherited in (fd, *slots):
        os.set_inheritable(inherited, False)
    with Connection(fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        line = Line(connection, parent)
        model = _load(line)
        if model is not None:
            serve(line, model, [Slot(slot) for slot in slots])


class Line:
    """The connection, for the process that makes this.

    A copy of that process ends when it would use it.
    """

    def __init__(self, connection: Connection, parent: int) -> None:
        """Speak and listen on `connection`.

        `parent` is a descriptor that can be read from when the parent has ended.
        """
        self._connection = connection
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)
        self._poller.register(parent, select.POLLIN)
        self._parent = parent
        self._pid = os.getpid()

    def recv(self) -> object:
        """Return the next message; end this process and its group if the parent has ended."""
        self.end_copies()
        if any(fd == self._parent for fd, _ in self._poller.poll()):
            _end_group()
        return self._connection.recv()

    def send(self, message: object) -> None:
        """Send `message`."""
        self.end_copies()
        send(self._connection, message)

    def end_copies(self) -> None:
        """End this process if it is a copy, as what it raises would have ended it."""
        if os.getpid() != self._pid:
            _leave(sys.exc_info()[1])


def _leave(error: BaseException | None) -> NoReturn:
    """End this process as `error` would have ended it, but at once.

    To take a framework apart takes a second.
    """
    with suppress(Exception):  # a model may have closed these
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status_of(error))


def status_of(error: BaseException | None) -> int:
    """Return the status with which a process exits that `error` ends."""
    code = error.code if isinstance(error, SystemExit) else error
    return code if isinstance(code, int) else int(code is not None)


def _end_group() -> None:
    """End this process and those that its model started."""
    os.killpg(os.getpid(), signal.SIGKILL)


def _end_with(parent: int, rope: int) -> int:
    """See to it that this process and those that its model starts end when the parent does, whose descriptor is returned.

    The kernel kills the whole group when the other end of the rope is closed, even if a model keeps
    the interpreter lock. For the case that a fork of the parent still holds that end, this process
    looks at the parent whenever it listens, and in the middle of a batch is told that the thread
    that started it has ended, which outlives it unless the parent ends.
    """

    def told(*_: object) -> None:
        if os.getpid() == leader:
            _end_group()

    leader = os.getpid()
    try:
        ended_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        raise SystemExit from None
    for number in group_signals():
        signal.signal(
            number, lambda *_: None
        )  # and not SIG_IGN, which the programs that a model starts would inherit
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, group_signals())  # blocked since its birth
    os.set_inheritable(rope, False)
    fcntl(rope, F_SETOWN, -leader)
    fcntl(rope, F_SETSIG, signal.SIGKILL)
    fcntl(rope, F_SETFL, fcntl(rope, F_GETFL) | os.O_ASYNC)
    signal.signal(signal.SIGRTMAX, told)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGRTMAX])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGRTMAX)
    if os.getppid() != parent:
        raise SystemExit
    return ended_fd


def _load(line: Line) -> CheckedModel | None:
    """Import what the model needs, load it when told to, and tell how that went."""
    prepare = line.recv()
    assert isinstance(prepare, Prepare)
    with suppress(Exception):  # loading will say so
        import_format(prepare.definition)
    if line.recv() is None:
        return None
    try:
        model = load_model(
            prepare.definition, prepare.settings, lambda text: line.send(Doing(text))
        )
    except ModelLoadError as err:
        line.send(Refused(str(err)))
        return None
    model.copies_outputs = False  # they are copied into the slot before the model runs again
    has_hooks = model.model.preprocess is not None or model.model.postprocess is not None
    line.send(Ready(model.timings, has_hooks))
    return model


def serve(line: Line, model: CheckedModel, slots: Sequence[Slot]) -> None:
    """Run what comes, one batch after the other, until there shall be no more or nothing can be run any more."""
    while isinstance(task := line.recv(), Run):
        answer, lost = run(line, model, task, slots[task.slot])
        line.send(answer)
        if lost:
            return
        del task, answer


def run(line: Line, model: CheckedModel, task: Run, slot: Slot) -> tuple[Done | Failed, bool]:
    """Run one batch and return what is told of it, and whether nothing can be run any more."""
    try:
        slot.reserve(task.end)
        inputs = unpack(task.table, slot.memory)
        try:
            outputs, failed = model.predict(
                lambda allocate: _given(inputs, allocate if model.model.pinned else None), task.rows
            )
        finally:
            line.end_copies()  # the slot is not theirs
        packer = Packer(slot, task.end)
        table = packer.table(outputs)
        return Done(
            task.number, table, packer.end, {row: tell(error) for row, error in failed.items()}
        ), False
    except BaseException as err:  # a model that calls sys.exit() must not end the child either
        error = device_error(err)
        return Failed(task.number, tell(error)), isinstance(error, DeviceLost)


def _given(inputs: dict[str, Array], allocate: Allocate | None) -> dict[str, Array]:
    """Return what the model is given.

    The slot's own memory, or buffers of its own, from which its device reads faster.
    """
    if allocate is None:
        return inputs
    buffers = {}
    for name, array in inputs.items():
        buffers[name] = allocate(name, array.shape, array.dtype)
        buffers[name][...] = array
    return buffers
