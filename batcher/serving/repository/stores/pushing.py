"""Puts a version into a store, and takes one out of it: for people and training scripts.

A server takes a version for whole once its `model.yaml` is there, or its `saved_model.pb`. So that
is the last file that is put and the first that is removed. The first file that is put is
`SHA256SUMS`, by which every server checks what it has fetched. It takes the number: the store is
asked to store it only if there is none, so that of two jobs which push at the same instant the
second takes the next number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from batcher.config.model_files import files_named_in
from batcher.config.saved_model.definition import is_saved_model
from batcher.config.saved_model.signatures import FILE as SAVED_MODEL
from batcher.config.triton.model_config import CONFIG, config_of
from batcher.core.error_text import brief
from batcher.core.names import MAX_VERSION_DIGITS, is_number, name_fault
from batcher.errors import ConfigError
from batcher.serving.repository.left_out import DEFINITION, is_no_model
from batcher.serving.repository.stores.checksums import SUMS, sha256_of
from batcher.serving.repository.stores.download import missing_of
from batcher.serving.repository.stores.names import names_fault
from batcher.serving.repository.stores.store import NoCreation, Store, WritableStore
from batcher.serving.repository.stores.versions import DEFINITIONS, StoredVersion, versions_in

MAX_TRIES = 100
"""Numbers in a row that others may take first: more jobs do not push one model at an instant."""

_OF_TRITON = "copy the folder of the model, with that file, by a tool of the store's"

Tell = Callable[[str], None]
"""Tells in words what is being done."""


def versions_of(store: Store, address: str, model: str = "") -> list[StoredVersion]:
    """Return the versions in the `store` at `address`; of `model` alone if it is named.

    Raises OSError, ConfigError.
    """
    found, _ = versions_in(address, store.list(model))
    return [version for version in found if model in ("", version.name)]


def push(
    store: WritableStore, address: str, folder: Path, name: str, version: int | None, tell: Tell
) -> str:
    """Put the version in `folder` into the `store` at `address`, and return its title.

    Without a `version` it is the one after the newest there, uploads that have not ended included:
    another job may push at the same time. `tell` hears of each file.

    A push of that number that was broken off goes on, if the files are the same.

    Raises ConfigError: the folder holds no version, or the number is taken; OSError.
    """
    _check_name(name)
    files = _files_in(folder)
    # Before the look at the numbers: to read gigabytes takes a minute, and others push meanwhile.
    sums = "".join(f"{sha256_of(folder / file)}  {file}\n" for file in files).encode()
    if version is None:
        title = _take_next(store, address, name, sums, tell)
    else:
        title = _take(store, address, f"{name}/{version}", sums, tell)
    _put(store, folder, files, title, tell)
    return title


def _take_next(store: WritableStore, address: str, name: str, sums: bytes, tell: Tell) -> str:
    """Take the number after the newest for a version with these `sums`, and return its title."""
    number = 0
    for _ in range(MAX_TRIES):
        there = {int(one.version) for one in versions_of(store, address, name)}
        # What another job has just taken need not be in the listing yet.
        number = max(there | _numbers_in(store, name) | {number}) + 1
        title = f"{name}/{number}"
        if _put_sums(store, title, sums, tell):
            return title
        tell(f"another push has just taken {title}")
    raise ConfigError(
        f"{address}: expected a free number for a version of {name}; others took {MAX_TRIES} first"
    )


def _take(store: WritableStore, address: str, title: str, sums: bytes, tell: Tell) -> str:
    """Take the number that `title` names, or go on with a push of the same files."""
    name, _, number = title.rpartition("/")
    if not is_number(number):
        raise ConfigError(f"--version: expected at most {MAX_VERSION_DIGITS} digits; got more")
    if any(one.version == number for one in versions_of(store, address, name)):
        raise ConfigError(
            f"{address}: expected a new version; got {title}, which is there: name "
            "another --version, or remove that one by `batcher models rm`"
        )
    if not _put_sums(store, title, sums, tell) and _sums_in(store, title) != sums:
        raise ConfigError(
            f"{address}: expected a new version; got {title}, of which other files are being "
            "pushed: name another --version, or, if that push was broken off, remove what it has "
            "left by `batcher models rm`"
        )
    return title


def _put_sums(store: WritableStore, title: str, sums: bytes, tell: Tell) -> bool:
    """Store the `sums` of the version `title` unless it has some; return whether that was done."""
    name = f"{title}/{SUMS}"
    try:
        is_ours = store.create(name, sums)
        # Some stores do not heed the condition: they take the file a second time as well.
        is_sure = is_ours and not store.create(name, sums)
    except NoCreation:
        is_ours, is_sure = store.find(name) is None, False
        if is_ours:
            with TemporaryDirectory() as temporary:
                path = Path(temporary, SUMS)
                path.write_bytes(sums)
                store.put(name, path)
    if is_ours:
        tell(f"{SUMS}, {len(sums):,} bytes")
    if is_ours and not is_sure:
        tell(f"this store cannot tell which of two pushes is first: let nobody else push {title}")
    return is_ours


def _sums_in(store: Store, title: str) -> bytes:
    """Return the sums of the version `title`; nothing if there are none. Raises OSError."""
    for file in store.list(title):
        if file.name == f"{title}/{SUMS}" and file.size:
            return store.fetch(file, 0, file.size)
    return b""


def _numbers_in(store: Store, name: str) -> set[int]:
    """Return the numbers of all folders of the model `name` that have a file."""
    names = (file.name.split("/") for file in store.list(name))
    return {int(steps[1]) for steps in names if len(steps) > 2 and is_number(steps[1])}


def _check_name(name: str) -> None:
    """Check that servers find a model called `name`. Raises ConfigError."""
    fault = name_fault(name) or "servers pass over such names" * is_no_model(name)
    if fault:
        raise ConfigError(f"--name: expected a name that a model can have; got {name!r}: {fault}")


def _put(store: WritableStore, folder: Path, files: list[str], title: str, tell: Tell) -> None:
    """Put the `files` in `folder`; what makes it a version last."""
    last = DEFINITION if DEFINITION in files else SAVED_MODEL
    for file in (*(each for each in files if each != last), last):
        path = folder / file
        tell(f"{file}, {path.stat().st_size:,} bytes")
        store.put(f"{title}/{file}", path)


def _files_in(folder: Path) -> list[str]:
    """Return the files of the version in `folder`, by their names from there."""
    if not (folder / DEFINITION).is_file() and not is_saved_model(folder):
        advice = "" if config_of(folder) is None else f", but a {CONFIG} above it: {_OF_TRITON}"
        raise ConfigError(
            f"{str(folder)!r}: expected the folder of a version, with a {DEFINITION}; there is "
            f"none{advice}"
        )
    found = [path.relative_to(folder).as_posix() for path in _paths(folder, frozenset())]
    found = [name for name in found if name != SUMS]  # it is made anew
    if fault := names_fault([*found, SUMS]):
        raise ConfigError(f"{str(folder)!r}: {fault}")
    named = files_named_in(folder / DEFINITION, found) if DEFINITION in found else []
    if missing := missing_of(named, {*found}):
        raise ConfigError(
            f"{str(folder / DEFINITION)!r}: expected names of files in that folder; got "
            f"{brief(missing[0], 200)}: servers would wait for it for ever"
        )
    return found


def _paths(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield the files in `folder` and below it, through links as well; `above` are its parents.

    Raises ConfigError: a link leads in a circle, or what is there is no file and may have no end.
    """
    here = folder.resolve()
    if here in above:
        raise ConfigError(f"{str(folder)!r}: expected a folder; got a link to one above it")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "__pycache__":
            yield from _paths(path, above | {here})
        elif not path.is_dir():
            if not path.is_file():
                raise ConfigError(f"{str(path)!r}: expected a file; got none, or a device")
            yield path


def remove(store: WritableStore, address: str, name: str, version: int) -> int:
    """Remove a version, or what a push that was broken off has left of it.

    Returns the number of its files. Raises OSError, ConfigError.
    """
    for one in versions_of(store, address, name):
        if int(one.version) == version:
            # What stands above its folder belongs to the other versions as well.
            own = [file for file in one.files if file.name.startswith(one.own(""))]
            makes_it = [file for file in own if file.name in DEFINITIONS]
            rest = [file for file in own if file not in makes_it]
            store.delete([one.in_store(file).name for file in (*makes_it, *rest)])
            return len(own)
    left = [file.name for file in store.list(f"{name}/{version}")]
    if f"{name}/{version}/{SUMS}" in left:  # a push begins with it
        store.delete(left)
        return len(left)
    raise ConfigError(f"{address}: expected a version that is there; got {name}/{version}")
