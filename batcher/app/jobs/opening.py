"""Inputs and outputs of `batcher run`, opened and described before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from batcher.codecs.content import MAX_IMAGE_PIXELS
from batcher.codecs.row_files.file_reading import FilesReader
from batcher.codecs.row_files.opening import check_ending, reader_of, writer_of
from batcher.core.cores import cores
from batcher.core.portions import RowReader, State
from batcher.core.spec import ModelSpec
from batcher.errors import ClientError, ConfigError
from batcher.serving.jobs.journal import DONE, FINISHING, RUNNING, Record, check_same
from batcher.serving.jobs.output_files import OutputFiles
from batcher.serving.jobs.writing import JobOutput
from batcher.workers.parallel import in_parallel


class Asked(NamedTuple):
    """What is to be read and written.

    Attributes:
        source: a file or a folder.
        output: a file.
        csv_header: `present`, `absent`, or empty where the file shows it.
        restart: whether what an earlier run left is removed.
        max_pixels: most pixels of a picture.
    """

    source: Path
    output: Path
    csv_header: str
    restart: bool
    max_pixels: int = MAX_IMAGE_PIXELS

    def check(self) -> None:
        """Check the names, before anything is loaded. Raises ConfigError."""
        try:
            check_ending(self.output.name, "the output")
            if not self.source.is_dir():
                check_ending(self.source.name, "the input")
        except ClientError as err:
            raise ConfigError(str(err)) from err
        if not self.source.exists():
            raise ConfigError(f"the input: expected a file or a folder; got {self.source}")


class Opened(NamedTuple):
    """An input and an output that are open.

    Attributes:
        reader: of the input.
        output: of the answers.
    """

    reader: RowReader
    output: JobOutput


def open_job(asked: Asked, spec: ModelSpec, identity: dict[str, Any]) -> Opened | Record:
    """Return reader and output of a job, or what its journal says if the job is done.

    `identity` says what the model is; that of the input is added.

    Raises ConfigError: the input cannot be read, has changed since the job began, or does not fit
    the model; the output cannot be written.
    """
    try:
        return _opened(asked, spec, identity)
    except (ClientError, OSError) as err:
        raise ConfigError(str(err)) from err


def _opened(asked: Asked, spec: ModelSpec, identity: dict[str, Any]) -> Opened | Record:
    """Do what `open_job` does; raises also ClientError, OSError."""
    reader = _reader(asked, spec)
    identity = {"input": _facts(asked), **identity}
    files = OutputFiles(asked.output, writer_of(asked.output.name, spec, {}).parts)
    if asked.restart:
        files.remove()
    files.check_free()
    record = files.journal.read()
    if record is not None:
        check_same(record, identity)
    record = record or _first(identity, reader, len(files.parts))
    writer = writer_of(asked.output.name, spec, record.writer)
    if record.stage == FINISHING:
        record = files.finish_again(writer.assemble)
    if record.stage == DONE:
        return record
    output = JobOutput(files, writer, record, reader.place)
    output.open()
    return Opened(reader, output)


def _first(identity: dict[str, Any], reader: RowReader, parts: int) -> Record:
    state: State = {}
    return Record(identity, RUNNING, reader.begin, 0, 0, 0.0, [0] * parts, 0, state)


def _reader(asked: Asked, spec: ModelSpec) -> RowReader:
    """Return what reads the input. Raises ClientError, OSError."""
    source = asked.source
    if source.is_dir():
        names = _names(source)
        read = _reading(source)
        return FilesReader(names, read, spec, asked.max_pixels, run_all)
    file = source.open("rb")
    try:
        return reader_of(source.name, file, spec, asked.csv_header, asked.max_pixels)
    except BaseException:
        file.close()
        raise


def _names(folder: Path) -> list[str]:
    """Return the files below `folder` in order, but hidden ones."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _reading(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def run_all(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of `tasks`, which run on all cores."""
    results: list[Any] = [None] * len(tasks)

    def keep(place: int, task: Callable[[], Any]) -> None:
        results[place] = task()

    work = [lambda place=place, task=task: keep(place, task) for place, task in enumerate(tasks)]
    in_parallel(min(cores(), len(tasks)), work, lambda _: None, "job-files")
    return results


def _facts(asked: Asked) -> dict[str, Any]:
    """Return what changes whenever the input does."""
    source = asked.source
    if source.is_dir():
        names = _names(source)
        sizes = [fact for name in names for fact in (name, *_file_facts(source / name))]
        return {"files": len(names), "digest": digest(sizes)}
    size, time = _file_facts(source)
    return {"bytes": size, "time": time, "header": asked.csv_header}


def _file_facts(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def digest(facts: Iterable[object]) -> str:
    """Return a text that is another one for other `facts`."""
    return blake2b("\0".join(map(str, facts)).encode(), digest_size=16).hexdigest()
