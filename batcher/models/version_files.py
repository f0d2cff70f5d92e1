"""The files of a version of a model, and whether two versions have the same ones.

Two servers may have different files under one name and number. What they share must then be told
apart by the content of the files:

    before the load    `seen_files`      which files there are, and when each was changed
    after the load     `content_digest`  their bytes, if none was changed meanwhile

So the digest is that of the files which were loaded, though it takes a second for each gigabyte and
nobody waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from glob import escape
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import NamedTuple

from batcher.config.model_file import ModelDefinition
from batcher.config.triton.model_config import config_of
from batcher.errors import ModelLoadError
from batcher.models.file_facts import times_of

CONTENT_BYTES = 32
"""Bytes of a digest of contents."""


class SeenFiles(NamedTuple):
    """The files of a version at one time.

    Attributes:
        folder: of the version.
        times: from the path of each file to what changes when the file is written or replaced.
    """

    folder: Path
    times: dict[Path, tuple[int, int, int, int]]


def seen_files(definition: ModelDefinition) -> SeenFiles:
    """Return the files of `definition` as they are now. Raises OSError. Disk thread."""
    single = definition.file if definition.is_single else None
    paths = {*version_files(definition.folder, single, definition.sample)}
    own = (definition.file, definition.weights)  # these two may lie outside the folder
    paths.update([path for path in own if path is not None])
    files = {path: times_of(path) for path in paths if path.is_file()}
    if not files:
        raise FileNotFoundError(f"{definition.folder}: expected files; got none")
    return SeenFiles(definition.folder, files)


def content_digest(seen: SeenFiles, left_out: Collection[Path] = ()) -> bytes:
    """Return a digest of the names and the bytes of the files that were `seen`.

    Args:
        seen: the files.
        left_out: paths of files that do not count.

    Raises:
        OSError: a file cannot be read.
        ModelLoadError: a file was changed since it was seen; the message names the file.

    Takes about a second for each gigabyte. Disk thread.
    """
    found = blake2b(digest_size=CONTENT_BYTES)
    paths = seen.times.keys() - set(left_out)
    names = {os.path.relpath(path, seen.folder): path for path in paths}
    for name in sorted(names):
        path = names[name]
        with path.open("rb") as stream:
            digest = file_digest(stream, lambda: blake2b(digest_size=CONTENT_BYTES)).digest()
        if times_of(path) != seen.times[path]:
            raise ModelLoadError(f"{path.name}: it was changed while the model was loaded")
        encoded = os.fsencode(name)
        found.update(b"%d:%b%b" % (len(encoded), encoded, digest))
    return found.digest()


def version_files(
    folder: Path, single: Path | None = None, sample: Path | None = None
) -> Iterable[Path]:
    """Return the paths of all files of a version. Disk thread.

    A single file has beside it, of its own, the weights of a graph, which have the graph's name and
    more, and the modules that it may import. Whatever else is in that folder is not the model's.

    Args:
        folder: of the version.
        single: the file of a model of one file, in a folder that is not the model's own.
        sample: a file with an example for such a model.
    """
    if single is None:
        config = config_of(folder)
        return [*_below(folder), *([config] if config is not None else [])]
    pattern = "*.py" if single.suffix == ".py" else f"{escape(single.name)}*"
    beside = [path for path in folder.glob(pattern) if path.is_file()]
    return {single, *beside, *([sample] if sample is not None else [])}


def _below(folder: Path) -> Iterator[Path]:
    """Yield the paths of all files below `folder`, but those of bytecode. Disk thread.

    Links to folders are followed, since models read through them; a folder that several links lead
    to is looked at once, so that links in a circle come to an end.
    """
    seen = {_real_path(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        inside = []
        for name in sorted(folders):
            real = _real_path(os.path.join(parent, name))
            if name != "__pycache__" and real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        yield from (Path(parent, name) for name in files)


def _real_path(path: str | Path) -> str:
    """Return where links at `path` lead; `path` itself where one has just been removed."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.fspath(path)
