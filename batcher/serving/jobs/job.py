"""One job: the rows of an input through a model into an output, in order.

    reading thread      loop                                   writing thread
    read a portion ---> send its rows; wait for all ---------> write answers in order, and now and
          ^             portions that wait: the window         then the journal
          `-- while the window has room <----------------------- written: out of the window

The window is bounded in portions and in bytes, so memory does not depend on the size of the input.
A portion is as many rows as the largest batch of the model, and is one request where rows have one
shape: each batch is full, and each run of the job makes the same batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.core.portions import Portion, Position, RowReader
from batcher.core.request import nbytes_of
from batcher.serving.jobs.answering import Answering, Outcome
from batcher.serving.jobs.writing import Answered, JobOutput, Progress
from batcher.workers.pool import CpuPool

MAX_WINDOW_BYTES = 48 << 20
"""Bytes of inputs that wait for their answers, or for being written; two portions in any case."""

CHECKPOINT_S = 1.0
"""Seconds between two notes in the journal: what a killed job has to run again."""


class _Waiting(NamedTuple):
    """A portion in the window.

    Attributes:
        portion: what was read.
        nbytes: bytes of its inputs.
        outcomes: what became of its groups, once all have ended.
    """

    portion: Portion
    nbytes: int
    outcomes: list[Outcome]


class Shape(NamedTuple):
    """How much a job has under way.

    Attributes:
        rows: rows of a portion.
        portions: portions in the window.
        request_rows: most rows of a request; None for a whole portion. Small requests find room in
            the batches of other clients.
    """

    rows: int
    portions: int
    request_rows: int | None = None


class Job:
    """Runs once. Reactor thread.

    Attributes:
        progress: how far it is.
    """

    def __init__(
        self,
        reader: RowReader,
        output: JobOutput,
        answering: Answering,
        shape: Shape,
        pools: tuple[CpuPool, CpuPool],
        clock: IReactorTime,
    ) -> None:
        """Read from `reader`, write to `output`; `pools` have a thread each, to read and write."""
        self.progress = output.progress
        self._reader = reader
        self._output = output
        self._answering = answering
        self._shape = shape
        self._reading, self._writing = pools
        self._clock = clock
        self._window: deque[_Waiting] = deque()
        self._nbytes = 0
        self._position: Position = output.position
        self._is_reading = self._is_writing = self._is_at_end = self._stops = False
        self._noted = clock.seconds()
        self._failure: Failure | None = None
        self._sent: set[Deferred[None]] = set()
        self._result: Deferred[Progress] = Deferred()

    def run(self) -> Deferred[Progress]:
        """Run to the end, or until `stop`; fires with how far the job is.

        Fails with what keeps it from going on now. The journal is right in any case.
        """
        self._read_more()
        return self._result

    def stop(self) -> None:
        """Send nothing more, and end when what was answered in order is written."""
        self._stops = True
        for sent in list(self._sent):
            sent.cancel()
        self._go_on()

    def _has_room(self) -> bool:
        if len(self._window) < 2:
            return True
        return len(self._window) < self._shape.portions and self._nbytes < MAX_WINDOW_BYTES

    def _read_more(self) -> None:
        if self._is_reading or self._is_at_end or self._stops or not self._has_room():
            return
        self._is_reading = True
        read = partial(self._reader.read, self._position, self._shape.rows)
        reading = self._reading.run(0, inf, read)
        reading.addCallbacks(self._read, self._not_read).addErrback(self._fail)

    def _read(self, portion: Portion | None) -> None:
        self._is_reading = False
        if self._stops:
            portion = None
        elif portion is None:
            self._is_at_end = True
        if portion is not None:
            self._position = portion.after
            self._send(portion)
        self._go_on()
        self._read_more()

    def _not_read(self, failure: Failure) -> None:
        self._is_reading = False
        self._fail(failure)

    def _send(self, portion: Portion) -> None:
        nbytes = sum(nbytes_of(group.inputs) for group in portion.groups)
        waiting = _Waiting(portion, nbytes, [])
        self._window.append(waiting)
        self._nbytes += nbytes
        most = self._shape.request_rows or self._shape.rows
        parts = [part for group in portion.groups for part in group.parts(most)]
        outcomes = [self._answering.answer(part) for part in parts]
        together = gatherResults(outcomes, consumeErrors=True)
        ended: Deferred[None] = together.addCallback(self._answered, waiting)
        self._sent.add(ended)
        ended.addErrback(self._fail_sent).addBoth(lambda _: self._sent.discard(ended))

    def _answered(self, outcomes: list[Outcome], waiting: _Waiting) -> None:
        # A portion of bad rows alone has ended without any request.
        waiting.outcomes.extend(outcomes or [Outcome([], {})])
        self._go_on()

    def _go_on(self) -> None:
        """Write what is ready, or end."""
        if self._is_writing or self._result.called:
            return
        if self._failure is not None:
            # Not before both threads are idle: whoever hears of it may close the files.
            if not self._is_reading:
                self._result.errback(self._failure)
            return
        ready: list[Answered] = []
        while self._window and self._window[0].outcomes:
            portion, nbytes, outcomes = self._window.popleft()
            self._nbytes -= nbytes
            ready.append(Answered(portion, outcomes))
        is_last = self._stops or (self._is_at_end and not self._window)
        is_last = is_last and not self._is_reading
        if not ready and not is_last:
            return
        self._is_writing = True
        due = self._clock.seconds() - self._noted >= CHECKPOINT_S
        if due:
            self._noted = self._clock.seconds()
        write = partial(self._write, ready, due or is_last, is_last and not self._stops)
        writing = self._writing.run(0, inf, write)
        writing.addCallbacks(self._written, self._not_written, (is_last,)).addErrback(self._fail)

    def _write(self, ready: Sequence[Answered], notes: bool, finishes: bool) -> None:
        """Write portions in order. The writing thread."""
        for answered in ready:
            self._output.add(answered)
        if notes:
            self._output.note()
        if finishes:
            self._output.finish()

    def _written(self, _: None, is_last: bool) -> None:
        self._is_writing = False
        self.progress = self._output.progress
        if is_last and self._failure is None:
            self._result.callback(self.progress)
            return
        self._read_more()
        self._go_on()

    def _not_written(self, failure: Failure) -> None:
        self._is_writing = False
        self._fail(failure)

    def _fail_sent(self, failure: Failure) -> None:
        if not self._stops:
            error = failure.value
            self._fail(error.subFailure if isinstance(error, FirstError) else failure)

    def _fail(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self.stop()
