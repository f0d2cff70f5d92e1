"""One job: the rows of an input through a model into an output, in order.

    reading thread      loop                                   writing thread
    read a portion ---> send its rows; wait for all ---------> write answers in order, and now and
          ^             portions that wait: the window         then the journal
          `-- while the window has room <----------------------- written: out of the window

The window is bounded in portions and in bytes, so memory does not depend on the size of the input.
Answers may wait for the disk while the model goes on: a checkpoint takes as long as many short
batches.

A portion is as many rows as the largest batch of the model, and is one request where rows have one
shape: each batch is full, and each run of the job makes the same batches. Where portions come
quickly, several are read at a time, and written: each step from thread to thread takes the
interpreter lock away from a model in Python.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from math import inf
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.core.portions import Portion, Position, RowReader
from batcher.core.request import nbytes_of
from batcher.serving.jobs.answering import Answering, Outcome
from batcher.serving.jobs.writing import Answered, JobOutput, Progress
from batcher.workers.pool import CpuPool

MAX_WINDOW_BYTES = 48 << 20
"""Bytes of inputs that wait for their answers, and of answers that wait for being written; two
portions in any case.
"""

MOST_UNWRITTEN = 256
"""Portions that are read and not written: what a portion is, besides its arrays, takes memory."""

READ_BYTES, READ_S = 2 << 20, 0.005
"""Bytes of inputs, and seconds, after which no other portion is read at once."""

WRITE_S = 0.02
"""Seconds for which an answered portion waits for others, to be written with them."""

CHECKPOINT_S = 1.0
"""Seconds between two notes in the journal: what a killed job has to run again."""


class _Waiting:
    """A portion in the window.

    Attributes:
        portion: what was read; its groups are let go of once they are answered.
        nbytes: bytes of their inputs, and then of the answers.
        sent: requests on their way.
        unanswered: how many requests have no outcome; none is left of a portion of bad rows.
        outcomes: what became of each request.
    """

    def __init__(self, portion: Portion, requests: int) -> None:
        self.portion = portion
        self.nbytes = _nbytes(portion)
        self.sent: list[Deferred[None]] = []
        self.unanswered = requests
        self.outcomes = [Outcome([], {})] * requests

    def answered(self) -> None:
        """Let go of the inputs: all requests have their outcome."""
        answers = [answer for outcome in self.outcomes for answer in outcome.answers]
        self.nbytes = sum(nbytes_of(answer.response.outputs) for answer in answers)
        self.portion = self.portion._replace(groups=())


def _nbytes(portion: Portion) -> int:
    return sum(nbytes_of(group.inputs) for group in portion.groups)


class Shape(NamedTuple):
    """How much a job has under way.

    Attributes:
        rows: rows of a portion.
        portions: portions in the window without an answer.
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
        self._shape, self._at_once = shape, max(shape.portions // 4, 1)
        self._reading, self._writing = pools
        self._clock = clock
        self._window: deque[_Waiting] = deque()
        self._unanswered = self._unwritten = self._nbytes = 0
        self._position: Position = output.position
        self._is_reading = self._is_writing = self._is_at_end = self._stops = False
        self._noted = self._wrote = clock.seconds()
        self._failure: Failure | None = None
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
        for waiting in self._window:
            for sent in waiting.sent:
                sent.cancel()
        self._go_on()

    def _has_room(self) -> bool:
        """Return whether the window takes as many portions as are read at once."""
        if self._unwritten < 2:
            return True
        return (
            self._unanswered + self._at_once <= self._shape.portions
            and self._unwritten + self._at_once <= MOST_UNWRITTEN
            and self._nbytes < MAX_WINDOW_BYTES
        )

    def _read_more(self) -> None:
        if self._is_reading or self._is_at_end or self._stops or not self._has_room():
            return
        self._is_reading = True
        reading = self._reading.run(0, inf, partial(self._read_some, self._position))
        reading.addCallbacks(self._read, self._not_read).addErrback(self._fail)

    def _read_some(self, position: Position) -> list[Portion | None]:
        """Return the next portions, at least one; None is the end. The reading thread.

        At most a quarter of the window: others keep the model busy meanwhile.
        """
        until, nbytes = self._clock.seconds() + READ_S, 0
        portion = self._reader.read(position, self._shape.rows)
        found = [portion]
        while portion is not None and len(found) < self._at_once:
            nbytes += _nbytes(portion)
            if nbytes >= READ_BYTES or self._clock.seconds() >= until:
                break
            portion = self._reader.read(portion.after, self._shape.rows)
            found.append(portion)
        return found

    def _read(self, found: Sequence[Portion | None]) -> None:
        self._is_reading = False
        portions = [portion for portion in found if portion is not None]
        if portions:
            self._position = portions[-1].after
        for portion in portions:
            if not self._stops:
                self._send(portion)
        # Only now: a portion of bad rows alone is answered at once, and is not the last one here.
        self._is_at_end = len(portions) < len(found)
        self._go_on()
        self._read_more()

    def _not_read(self, failure: Failure) -> None:
        self._is_reading = False
        self._fail(failure)

    def _send(self, portion: Portion) -> None:
        most = self._shape.request_rows or self._shape.rows
        parts = [part for group in portion.groups for part in group.parts(most)]
        waiting = _Waiting(portion, len(parts))
        self._window.append(waiting)
        self._unwritten += 1
        self._unanswered += 1
        self._nbytes += waiting.nbytes
        for place, part in enumerate(parts):
            if self._stops:
                return
            sent = self._answering.answer(part).addCallback(self._ended, waiting, place)
            waiting.sent.append(sent.addErrback(self._fail_sent))
        if not parts:
            self._answered(waiting)

    def _ended(self, outcome: Outcome, waiting: _Waiting, place: int) -> None:
        waiting.outcomes[place] = outcome
        waiting.unanswered -= 1
        if not waiting.unanswered:
            self._answered(waiting)

    def _answered(self, waiting: _Waiting) -> None:
        self._nbytes -= waiting.nbytes
        waiting.answered()
        self._nbytes += waiting.nbytes
        self._unanswered -= 1
        self._read_more()
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
        ready = list(takewhile(lambda waiting: not waiting.unanswered, self._window))
        is_last = self._stops or (self._is_at_end and len(ready) == len(self._window))
        is_last = is_last and not self._is_reading
        if not is_last and (not ready or self._may_wait(ready)):
            return
        for _ in ready:
            self._window.popleft()
        self._is_writing, self._wrote = True, self._clock.seconds()
        due = self._wrote - self._noted >= CHECKPOINT_S
        if due:
            self._noted = self._wrote
        write = partial(self._write, ready, due or is_last, is_last and not self._stops)
        writing = self._writing.run(0, inf, write)
        ended = writing.addCallbacks(self._written, self._not_written, (ready, is_last))
        ended.addErrback(self._fail)

    def _may_wait(self, ready: Sequence[_Waiting]) -> bool:
        """Return whether `ready` is written later: with a portion that is still to be answered."""
        passed = self._clock.seconds() - self._wrote
        return self._unanswered > 0 and len(ready) < self._at_once and passed < WRITE_S

    def _write(self, ready: Sequence[_Waiting], notes: bool, finishes: bool) -> None:
        """Write portions in order. The writing thread."""
        for waiting in ready:
            self._output.add(Answered(waiting.portion, waiting.outcomes))
        if finishes:
            self._output.finish()
        elif notes:
            self._output.note()

    def _written(self, _: None, written: Sequence[_Waiting], is_last: bool) -> None:
        self._is_writing = False
        self._unwritten -= len(written)
        self._nbytes -= sum(waiting.nbytes for waiting in written)
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
            self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self.stop()
