"""The batch jobs of a server, with readers and writers of files, which serving does not know."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from batcher.app.jobs.opening import Asked, DoneBefore, check_names, open_job
from batcher.app.jobs.sources import source_at
from batcher.app.jobs.targets import target_at
from batcher.config.settings import ServerSettings
from batcher.core.cores import cores
from batcher.core.error_text import message
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError
from batcher.serving.jobs.board import JobBoard
from batcher.serving.jobs.entry import Wanted
from batcher.serving.jobs.server_job import OpenedJob
from batcher.serving.jobs.writing import public_text
from batcher.serving.server import ModelServer


def make_board(settings: ServerSettings, base: Path, server: ModelServer) -> JobBoard | None:
    """Return the jobs of `server`; None if it takes none. Nothing starts."""
    jobs = settings.jobs
    if jobs is None:
        return None
    work = base.absolute() / jobs.folder / "work"
    text_of = message if settings.expose_model_errors else public_text
    opening = partial(_opened, work, settings.max_image_pixels, text_of)
    return JobBoard(jobs, base, server, opening, time.time)


def _opened(
    work: Path,
    max_pixels: int,
    text_of: Callable[[BatcherError], str],
    wanted: Wanted,
    spec: ModelSpec,
    identity: dict[str, Any],
) -> OpenedJob:
    """Open a job; outputs for a store wait in `work`. Raises ConfigError. A thread of its own."""
    check_names(wanted.input, wanted.output)
    source, target = source_at(wanted.input, False), target_at(wanted.output, work)
    # The other cores are for the requests of clients.
    threads = max(cores() // 4, 1)
    asked = Asked(source, target, wanted.csv_header, wanted.restart, max_pixels, text_of, threads)
    opened = open_job(asked, spec, identity)
    files = opened.files
    send = partial(target.send, files)
    if isinstance(opened, DoneBefore):
        return OpenedJob(opened.record, None, None, send, files.remove)
    return OpenedJob(opened.output.record, opened.reader, opened.output, send, files.remove)
