"""Puts a version into a store, and takes one out of it: for people and training scripts.

A server takes a version for whole once its `model.yaml` is there, or its `saved_model.pb`. So that
is the last file that is put and the first that is removed. The first file that is put is
`SHA256SUMS`, by which every server checks what it has fetched, and by which another job that pushes
sees that the number is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from batcher.config.saved_model.definition import is_saved_model
from batcher.config.saved_model.signatures import FILE as SAVED_MODEL
from batcher.config.triton.model_config import CONFIG, config_of
from batcher.core.names import is_number, name_fault
from batcher.errors import ConfigError
from batcher.serving.repository.left_out import DEFINITION, is_no_model
from batcher.serving.repository.stores.checksums import SUMS, sha256_of
from batcher.serving.repository.stores.names import names_fault
from batcher.serving.repository.stores.store import Store, WritableStore
from batcher.serving.repository.stores.versions import DEFINITIONS, StoredVersion, versions_in

_OF_TRITON = "copy the folder of the model, with that file, by a tool of the store's"


def versions_of(store: Store, address: str, model: str = "") -> list[StoredVersion]:
    """Return the versions in the `store` at `address`; of `model` alone if it is named.

    Raises OSError, ConfigError.
    """
    found, _ = versions_in(address, store.list(model))
    return [version for version in found if model in ("", version.name)]


def push(
    store: WritableStore,
    address: str,
    folder: Path,
    name: str,
    version: int | None,
    tell: Callable[[str], None],
) -> str:
    """Put the version in `folder` into the `store` at `address`, and return its title.

    Without a `version` it is the one after the newest there, uploads that have not ended included:
    another job may push at the same time. `tell` hears of each file.

    Raises ConfigError: the folder holds no version, or the store has that version; OSError.
    """
    _check_name(name)
    files = _files_in(folder)
    # Before the look at the numbers: to read gigabytes takes a minute, and others push meanwhile.
    sums = "".join(f"{sha256_of(folder / file)}  {file}\n" for file in files)
    number = _number(store, address, name, version)
    _put(store, folder, files, sums, f"{name}/{number}", tell)
    return f"{name}/{number}"


def _number(store: Store, address: str, name: str, version: int | None) -> int:
    """Return the number that is pushed under; `version` if it is free. Raises ConfigError."""
    there = {int(one.version) for one in versions_of(store, address, name)}
    if version is None:
        return max(there | _numbers_in(store, name), default=0) + 1
    if version in there:
        raise ConfigError(
            f"{address}: expected a new version; got {name}/{version}, which is there: name "
            "another --version, or remove that one by `batcher models rm`"
        )
    return version


def _numbers_in(store: Store, name: str) -> set[int]:
    """Return the numbers of all folders of the model `name` that have a file."""
    names = (file.name.split("/") for file in store.list(name))
    return {int(steps[1]) for steps in names if len(steps) > 2 and is_number(steps[1])}


def _check_name(name: str) -> None:
    """Check that servers find a model called `name`. Raises ConfigError."""
    fault = name_fault(name) or "servers pass over such names" * is_no_model(name)
    if fault:
        raise ConfigError(f"--name: expected a name that a model can have; got {name!r}: {fault}")


def _put(
    store: WritableStore,
    folder: Path,
    files: list[str],
    sums: str,
    title: str,
    tell: Callable[[str], None],
) -> None:
    """Put the `files` in `folder`: their `sums` first, and what makes it a version last."""
    last = DEFINITION if DEFINITION in files else SAVED_MODEL
    with TemporaryDirectory() as temporary:
        first = Path(temporary, SUMS)
        first.write_text(sums, encoding="utf-8")
        paths = {file: folder / file for file in files if file != last}
        for file, path in {SUMS: first, **paths, last: folder / last}.items():
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
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        found += [Path(parent, name).relative_to(folder).as_posix() for name in sorted(names)]
    found = [name for name in found if name != SUMS]  # it is made anew
    if fault := names_fault(found):
        raise ConfigError(f"{str(folder)!r}: {fault}")
    return found


def remove(store: WritableStore, address: str, name: str, version: int) -> int:
    """Remove a version, and return the number of its files. Raises OSError, ConfigError."""
    for one in versions_of(store, address, name):
        if int(one.version) == version:
            # What stands above its folder belongs to the other versions as well.
            own = [file for file in one.files if file.name.startswith(one.own(""))]
            makes_it = [file for file in own if file.name in DEFINITIONS]
            rest = [file for file in own if file not in makes_it]
            store.delete([one.in_store(file).name for file in (*makes_it, *rest)])
            return len(own)
    raise ConfigError(f"{address}: expected a version that is there; got {name}/{version}")
