"""Input and output of `batcher run`, opened and checked before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from batcher.app.jobs.far_reader import LEAST_BYTES, FarReader
from batcher.app.jobs.far_reading import FarFile
from batcher.app.jobs.sources import Source
from batcher.app.jobs.targets import Target
from batcher.codecs.content import MAX_IMAGE_PIXELS
from batcher.codecs.row_files.file_reading import FilesReader
from batcher.codecs.row_files.named_files import NamedFiles
from batcher.codecs.row_files.opening import (
    BATCH_END,
    check_ending,
    error_line_of,
    is_batch,
    is_text,
    reader_of,
    writer_of,
)
from batcher.core.cores import cores
from batcher.core.error_text import message
from batcher.core.portions import RowReader
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ClientError, ConfigError, Unavailable
from batcher.serving.jobs.journal import FINISHED, FINISHING, RUNNING, Record, check_same
from batcher.serving.jobs.output_files import OutputFiles
from batcher.serving.jobs.writing import JobOutput
from batcher.serving.references.line_files import LineFiles
from batcher.serving.repository.stores.address import is_store, plain_address
from batcher.workers.codec_process.process import HAS_CHILDREN
from batcher.workers.parallel import in_parallel


class Asked(NamedTuple):
    """What is to be read and written.

    Attributes:
        source: what is read.
        target: where the answers go.
        csv_header: `present`, `absent`, or empty where the file shows it.
        restart: whether what an earlier run left is removed.
        max_pixels: most pixels of a picture.
        text_of: returns what the file of errors says of an error.
        threads: how many decode pictures; None for one for each core.
        files: fetches what lines name in place of values; None where they may name nothing.
        may_start: whether a process may be started to read a large file.
    """

    source: Source
    target: Target
    csv_header: str
    restart: bool
    max_pixels: int = MAX_IMAGE_PIXELS
    text_of: Callable[[BatcherError], str] = message
    threads: int | None = None
    files: LineFiles | None = None
    may_start: bool = False


class Opened(NamedTuple):
    """An input and an output that are open.

    Attributes:
        reader: of the input.
        output: of the answers.
        files: those of the output.
        named: fetches what lines name; None where they may name nothing.
    """

    reader: RowReader
    output: JobOutput
    files: OutputFiles
    named: LineFiles | None = None

    def give_up(self) -> None:
        """Wait for no file that a line names: the job is stopped. Any thread."""
        if self.named is not None:
            self.named.give_up()

    def close(self) -> None:
        """Let go of the output, and end the process that reads."""
        self.output.close()
        if isinstance(self.reader, FarReader):
            self.reader.close()


class DoneBefore(NamedTuple):
    """A job that an earlier run has brought to its end.

    Attributes:
        record: what its journal says.
        files: those of the output.
    """

    record: Record
    files: OutputFiles


def check_names(source: str, output: str) -> None:
    """Check the ends of names, before anything is looked at. Raises ConfigError.

    An input without an end is a folder.
    """
    try:
        check_ending(output, "the output")
        if "." in source.rpartition("/")[2].strip(".") and not Path(source).is_dir():
            check_ending(source, "the input")
    except ClientError as err:
        raise ConfigError(str(err)) from err
    if is_batch(source) != is_batch(output):
        raise ConfigError(
            f"the output: expected {BATCH_END} at the end of input and output, or of neither; got "
            f"{output}"
        )
    _check_apart(source, output)


def _check_apart(source: str, output: str) -> None:
    """Check that no file of the output is the input, or in it. Raises ConfigError.

    To begin anew would remove the input; and a folder with the output in it changes all the time.
    """
    plain = plain_address if is_store(output) else os.path.realpath
    written, read = plain(output), (plain_address if is_store(source) else os.path.realpath)(source)
    if read in (written, f"{written}.errors.jsonl") or written.startswith(f"{read}/"):
        raise ConfigError(f"the output: expected a place apart from the input; got {output}")


def open_job(asked: Asked, spec: ModelSpec, identity: dict[str, Any]) -> Opened | DoneBefore:
    """Return reader and output of a job, or what its journal says if the job is done.

    `identity` says what the model is; that of the input is added.

    Raises ConfigError: the input cannot be read, has changed since the job began, or does not fit
    the model; the output cannot be written.
    """
    try:
        return _opened(asked, spec, identity)
    except (ClientError, OSError) as err:
        raise ConfigError(str(err)) from err


def _opened(asked: Asked, spec: ModelSpec, identity: dict[str, Any]) -> Opened | DoneBefore:
    """Do what `open_job` does; raises also ClientError, OSError."""
    path = asked.target.path
    reader = _reader(asked, spec)
    facts = asked.source.facts() | {"header": asked.csv_header}
    identity = {"input": facts, **identity}
    files = OutputFiles(path, writer_of(path.name, spec, {}).parts)
    if asked.restart:
        files.remove()
    else:
        asked.target.check_free(files)
    record = files.journal.read()
    if record is not None:
        check_same(record, identity)
    record = record or _first(identity, reader, len(files.parts))
    writer = writer_of(path.name, spec, record.writer)
    if record.stage == FINISHING:
        record = files.finish_again(writer.assemble)
    if record.stage in FINISHED:
        return DoneBefore(record, files)
    line = error_line_of(path.name, reader.place)
    output = JobOutput(files, writer, record, line, asked.text_of)
    output.open()
    return Opened(_far(asked, spec, reader), output, files, asked.files)


def _first(identity: dict[str, Any], reader: RowReader, parts: int) -> Record:
    return Record(identity, RUNNING, reader.begin, 0, 0, 0.0, [0] * parts, 0, {})


def _reader(asked: Asked, spec: ModelSpec) -> RowReader:
    """Return what reads the input. Raises ClientError, OSError."""
    source = asked.source
    if source.is_folder:
        run = partial(run_all, threads=asked.threads)
        return FilesReader(source.names(), source.read, spec, asked.max_pixels, run)
    check_ending(source.name, "the input")
    file = source.open()
    try:
        named = None if asked.files is None else NamedFiles(asked.files.fetch, run_all)
        return reader_of(source.name, file, spec, asked.csv_header, asked.max_pixels, named)
    except BaseException:
        file.close()
        raise


def _far(asked: Asked, spec: ModelSpec, near: RowReader) -> RowReader:
    """Return what reads the input in another process, where that is worth it, or else `near`."""
    path, state = asked.source.path, asked.source.state
    if path is None or not (asked.may_start and asked.files is None and is_text(path.name)):
        return near
    if state is None or not HAS_CHILDREN or cores() < 2 or state.size < LEAST_BYTES:
        return near
    try:
        return FarReader(near, FarFile(path, state, spec, asked.csv_header, asked.max_pixels))
    except Unavailable:  # the system has no more processes, and this one reads as well
        return near


def run_all(tasks: Sequence[Callable[[], Any]], threads: int | None = None) -> list[Any]:
    """Return the results of `tasks`, which run on so many threads, or on all cores."""
    results: list[Any] = [None] * len(tasks)

    def keep(place: int, task: Callable[[], Any]) -> None:
        results[place] = task()

    work = [lambda place=place, task=task: keep(place, task) for place, task in enumerate(tasks)]
    in_parallel(min(threads or cores(), len(tasks)), work, lambda _: None, "job-files")
    return results
