"""The batch jobs of a server, with readers and writers of files, which serving does not know."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from batcher.app.jobs.opening import Asked, DoneBefore, check_names, open_job
from batcher.app.jobs.sources import source_at
from batcher.app.jobs.targets import target_at
from batcher.codecs.row_files.batch_lines import check_batch
from batcher.config.job_settings import UploadSettings
from batcher.config.settings import ServerSettings
from batcher.core.cores import cores
from batcher.core.error_text import message
from batcher.core.portions import BatchCheck
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ConfigError
from batcher.serving.jobs.batches import Batches
from batcher.serving.jobs.board import JobBoard
from batcher.serving.jobs.entry import Wanted
from batcher.serving.jobs.server_job import JobFiles, OpenedJob
from batcher.serving.jobs.uploads import Uploads
from batcher.serving.jobs.writing import public_text
from batcher.serving.references.fetcher import FetchRules
from batcher.serving.references.line_files import LineFiles
from batcher.serving.server import ModelServer
from batcher.workers.pool import CpuPool

UnixTime = Callable[[], float]
"""Returns Unix seconds."""


MOST_DISK_TASKS = 256
"""Reads and writes of clients' files that wait; each file that arrives has one at a time."""

MOST_DISK_BYTES = 64 << 20
"""Bytes of files that wait to be written."""

SWEEP_S = 60.0
"""Seconds between two looks for jobs and files whose time is over: no client may ever ask again."""

_DAY_S = 86_400.0


class ServerJobs(NamedTuple):
    """The jobs of a server. Reactor thread.

    Attributes:
        board: all jobs.
        sweeping: removes what is old.
        uploads: files that clients have uploaded; None where they may not.
        batches: batches over these files; None likewise.
    """

    board: JobBoard
    sweeping: LoopingCall
    uploads: Uploads | None = None
    batches: Batches | None = None

    def start(self) -> Deferred[Any]:
        """Read the notes, and go on with the jobs that have not ended; fires once all are read."""
        started: Deferred[Any] = self.board.start()
        if self.uploads is not None:
            # Jobs first: a file is never found before it is known whether a batch reads it.
            uploads = self.uploads
            started.addCallback(lambda _: uploads.start())
        return started.addCallback(self._sweep_from_now_on)

    def _sweep_from_now_on(self, result: Any) -> Any:
        if not self.board.stops:
            self.sweeping.start(SWEEP_S)
        return result

    def stop(self) -> Deferred[Any]:
        """Send nothing more; fires when the journal of each job is written."""
        if self.sweeping.running:
            self.sweeping.stop()
        return self.board.stop()

    def close(self) -> None:
        """Give up files that still arrive or are sent: their clients have had their time."""
        if self.uploads is not None:
            self.uploads.disk.stop()


def make_jobs(
    settings: ServerSettings, base: Path, server: ModelServer, unix_time: UnixTime = time.time
) -> ServerJobs | None:
    """Return the jobs of `server`; None if it takes none. Nothing starts."""
    jobs = settings.jobs
    if jobs is None:
        return None
    folder = base.absolute() / jobs.folder
    text_of = message if settings.expose_model_errors else public_text
    opening = partial(
        _opened, folder / "work", settings.max_image_pixels, text_of, lambda: server.fetcher.rules
    )
    wishes = jobs.uploads or UploadSettings()
    files = JobFiles(opening, partial(_checked, wishes.max_requests))
    board = JobBoard(jobs, base, server, files, unix_time)
    if jobs.uploads is None:
        return ServerJobs(board, _sweeping(board.sweep, server))
    bounds = (2, MOST_DISK_TASKS, MOST_DISK_BYTES)
    disk = CpuPool(*bounds, server.call_from_thread, server.clock, "uploads")
    keep_s = jobs.keep_days * _DAY_S
    uploads = Uploads(jobs.uploads, folder / "uploads", keep_s, disk, unix_time)
    most = max(int(jobs.most * wishes.key_share), 1)
    batches = Batches(board, uploads, folder / "outputs", most)
    return ServerJobs(board, _sweeping(batches.sweep, server), uploads, batches)


def _sweeping(sweep: Callable[[], None], server: ModelServer) -> LoopingCall:
    sweeping = LoopingCall(sweep)
    sweeping.clock = server.clock
    return sweeping


def _checked(most: int, wanted: Wanted, stops: Callable[[], bool]) -> BatchCheck | None:
    """Look through the requests of a batch. Raises ConfigError. A thread of the job."""
    assert wanted.batch is not None, "only a batch is checked"
    try:
        with open(wanted.input, "rb") as file:
            return check_batch(file, wanted.batch["endpoint"], most, stops)
    except OSError as err:
        raise ConfigError(f"the input: {err}") from err


def _opened(
    work: Path,
    max_pixels: int,
    text_of: Callable[[BatcherError], str],
    rules: Callable[[], FetchRules],
    wanted: Wanted,
    spec: ModelSpec,
    identity: dict[str, Any],
) -> OpenedJob:
    """Open a job; outputs for a store wait in `work`. Raises ConfigError. A thread of its own."""
    check_names(wanted.input, wanted.output)
    source, target = source_at(wanted.input, False), target_at(wanted.output, work)
    # The other cores are for the requests of clients.
    threads = max(cores() // 4, 1)
    named = LineFiles(rules) if rules().is_on else None
    options = (wanted.csv_header, wanted.restart, max_pixels, text_of, threads, named)
    asked = Asked(source, target, *options)
    opened = open_job(asked, spec, identity)
    files = opened.files
    send = partial(target.send, files)
    if isinstance(opened, DoneBefore):
        return OpenedJob(opened.record, None, None, send, files.remove)
    output, stop = opened.output, opened.give_up
    return OpenedJob(output.record, opened.reader, output, send, files.remove, stop)
