"""One job of a server while it runs: from the model that is to answer to the end of the output.

    wait for the model ─► open input and output ─► rows ─► put the output into its store

Of a batch, the requests are checked first: they say which model it is.

The rows are of the bulk class, in requests of a part of a batch, so that they find room in the
batches of other clients. What answers is looked up for each request, as for any client's: a model
that is loaded anew goes on, and one that is away for a while is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from batcher.core.error_text import message
from batcher.core.portions import BatchCheck, RowReader
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import Draining, InvalidInput, ModelNotReady, Unavailable, UnknownModel
from batcher.serving.jobs.answering import Answering
from batcher.serving.jobs.entry import JobEntry, Wanted
from batcher.serving.jobs.job import Job, Shape
from batcher.serving.jobs.journal import FINISHED, RUNNING, Record
from batcher.serving.jobs.writing import JobOutput, Progress, progress_of
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.server import ModelServer
from batcher.workers.pool import CpuPool

BROKEN_S = 60.0
"""Seconds for which a model without any worker is waited for.

A worker that hangs may come back from its batch. Most never do, and no other takes its place.
"""

MODEL_S = 1.0
"""Seconds between two looks for a model that is not ready."""

PARTS_OF_BATCH = 8
"""Requests of a batch: a request finds room only where all of it has room."""

MOST_PORTIONS = 3
"""Batches without an answer besides two for each instance: few, since the queue is everybody's."""

CLIENT = "jobs"
"""Whose share of the CPU pool hooks of jobs use."""


def _do_nothing() -> None:
    """Stand for what an opened job has nothing of."""


class OpenedJob(NamedTuple):
    """Input and output of a job.

    Attributes:
        record: what the journal says.
        reader: of the input; None where the job was brought to its end before.
        output: of the answers; None likewise.
        send: puts the whole output where it belongs. A thread of its own.
        discard: removes what was written. A thread of its own.
        give_up: ends what reading waits for, and the job does not any more.
    """

    record: Record
    reader: RowReader | None
    output: JobOutput | None
    send: Callable[[], None]
    discard: Callable[[], None]
    give_up: Callable[[], None] = _do_nothing


OpenJob = Callable[[Wanted, ModelSpec, dict[str, Any]], OpenedJob]
"""Opens a job for a model; the last argument says which model it is. Raises BatcherError."""

CheckJob = Callable[[Wanted, Callable[[], bool]], BatchCheck | None]
"""Looks through the input of a batch; None once the last argument says that nobody waits."""


class JobFiles(NamedTuple):
    """How the files of jobs are read and written.

    Attributes:
        open: opens a job.
        check: checks a batch.
    """

    open: OpenJob
    check: CheckJob


class ServerJob:
    """Runs the job of an entry once. Reactor thread.

    Attributes:
        cancelled: whether a client has ended it, and nothing of it shall stay.
    """

    def __init__(
        self,
        entry: JobEntry,
        server: ModelServer,
        files: JobFiles,
        began: Callable[[], object],
    ) -> None:
        """Run nothing yet; call `began` when `entry` says which model, and version, answers."""
        self.cancelled = False
        self._began = began
        self._entry = entry
        self._server = server
        self._files = files
        call, clock = server.call_from_thread, server.clock
        self._reading, self._writing = (
            CpuPool(1, 4, 1, call, clock, name) for name in ("job-read", "job-write")
        )
        self._opened: OpenedJob | None = None
        self._job: Job | None = None
        self._later: Deferred[Any] | None = None
        self._sending: Deferred[None] | None = None
        self._timer: IDelayedCall
        self._broken_since: float | None = None
        self._stops = False

    @property
    def progress(self) -> Progress:
        """How far the job is."""
        return self._entry.progress if self._job is None else self._job.progress

    def written(self) -> tuple[int, int]:
        """Return the rows that this run has written, and those of them without an answer."""
        return self._entry.written(self.progress)

    def run(self) -> Deferred[Progress]:
        """Run; fires with how far the job is, which may not be its end after `stop`.

        Fails with what keeps it from going on.
        """
        running: Deferred[Any] = maybeDeferred(self._check)
        running.addCallback(lambda _: self._model())
        running.addCallback(self._open).addCallback(self._begin).addCallback(self._send)
        return running.addErrback(self._stopped).addBoth(self._closed)

    def stop(self) -> None:
        """Send nothing more; what was answered in order is written, and the job can go on."""
        self._stops = True
        if self._sending is not None:
            # The end of a server does not wait for gigabytes; a client who comes too late does.
            if not self.cancelled:
                self._sending.cancel()
        elif self._job is not None and self._opened is not None:
            self._job.stop()
            self._opened.give_up()
        elif self._later is not None:
            self._later.cancel()
        # What is being opened is closed again as soon as it is open.

    def _check(self) -> Deferred[None] | None:
        """Learn the model of a batch; fails with InvalidInput if it is none."""
        wanted = self._entry.wanted
        if wanted.batch is None or wanted.model:
            return None
        check = partial(self._files.check, wanted, lambda: self._stops)
        return self._reading.run(0, inf, check).addCallback(self._checked)

    def _checked(self, check: BatchCheck | None) -> None:
        if check is None or self._stops:
            raise CancelledError
        wanted = self._entry.wanted
        assert wanted.batch is not None, "only a batch is checked"
        faults = [fault._asdict() for fault in check.faults]
        batch = wanted.batch | {"total": check.requests, "faults": faults}
        self._entry.wanted = wanted._replace(model="" if faults else check.model, batch=batch)
        if faults:
            raise InvalidInput(f"the input: {check.faults[0].message}")
        self._began()

    def _model(self) -> Deferred[ModelVersion]:
        """Return the version that is to answer, once it is ready; fails with UnknownModel."""
        found: Deferred[ModelVersion] = Deferred(lambda _: self._timer.cancel())
        self._later = found
        self._look(found)
        return found

    def _look(self, found: Deferred[ModelVersion]) -> None:
        try:
            version = self._ready_model()
        except Exception as err:
            if isinstance(err, Unavailable) and not isinstance(err, Draining):
                self._timer = self._server.clock.callLater(MODEL_S, self._look, found)
            else:
                found.errback()
        else:
            found.callback(version)

    def _ready_model(self) -> ModelVersion:
        """Return the version that answers. Raises UnknownModel also where it never will."""
        name, version = self._entry.wanted.model, self._entry.version
        try:
            found = self._server.ready_model(name, version)
        except ModelNotReady as err:
            looking = self._server.lifecycle.looking
            if looking or not self._is_lost(self._server.find(name, version).state):
                raise
            raise UnknownModel(message(err.public or err)) from err
        self._broken_since = None
        return found

    def _is_lost(self, state: ModelState) -> bool:
        """Return whether a version in `state`, which is not ready, is not worth waiting for."""
        if state is not ModelState.BROKEN:
            self._broken_since = None
            return state in (ModelState.FAILED, ModelState.UNLOADED)
        now = self._server.clock.seconds()
        if self._broken_since is None:
            self._broken_since = now
        return now - self._broken_since >= BROKEN_S

    def _open(self, version: ModelVersion) -> Deferred[tuple[ModelVersion, OpenedJob]]:
        self._later = None
        self._entry.version = version.spec.version
        identity = {"model": version.title, "largest batch": version.settings.max_batch_size}
        open_job = partial(self._files.open, self._entry.wanted, version.spec, identity)
        return self._reading.run(0, inf, open_job).addCallback(lambda opened: (version, opened))

    def _begin(self, found: tuple[ModelVersion, OpenedJob]) -> Progress | Deferred[Progress]:
        version, self._opened = found
        entry, reader, output = self._entry, self._opened.reader, self._opened.output
        # Once only: after a restart of the server the job goes on.
        entry.wanted = entry.wanted._replace(restart=False)
        entry.progress = progress_of(self._opened.record)
        entry.before = entry.progress
        self._began()
        if reader is None or output is None or self._stops:
            return entry.progress
        rows, instances = version.settings.max_batch_size, version.settings.most_instances
        shape = Shape(rows, MOST_PORTIONS + 2 * instances, max(rows // PARTS_OF_BATCH, 1))
        answering = Answering(self._infer, self._server.clock)
        pools = (self._reading, self._writing)
        self._job = Job(reader, output, answering, shape, pools, self._server.clock)
        return self._job.run()

    def _infer(self, inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
        version = self._ready_model()
        return version.infer(inputs, Parameters(inf, version.max_level, None, CLIENT))

    def _send(self, progress: Progress) -> Progress | Deferred[Progress]:
        assert self._opened is not None, "what has progress was opened"
        if progress.stage not in FINISHED:
            return progress
        if self._stops and not self.cancelled:
            return progress._replace(stage=RUNNING)
        self._sending = self._writing.run(0, inf, self._opened.send)
        return self._sending.addCallback(lambda _: progress)

    def _stopped(self, failure: Failure) -> Progress:
        """Let a job that was stopped, or whose server ends, go on another time."""
        if not self._stops:
            failure.trap(Draining)
        elif not failure.check(CancelledError, Draining):
            failure.raiseException()
        # Not at its end, whatever the journal says: what was not put into its store is put later.
        return self.progress._replace(stage=RUNNING)

    def _closed(self, result: Progress | Failure) -> Any:
        opened = self._opened
        if opened is None:
            return self._ended(result)
        if opened.output is not None:
            opened.output.close()
        # Whoever cancels a job that has just ended gets its output.
        is_done = isinstance(result, Progress) and result.stage in FINISHED
        if is_done or not self.cancelled:
            return self._ended(result)
        discarded = self._writing.run(0, inf, opened.discard)
        return discarded.addBoth(lambda _: self._ended(result))

    def _ended(self, result: Progress | Failure) -> Progress | Failure:
        self._reading.stop()
        self._writing.stop()
        return result
