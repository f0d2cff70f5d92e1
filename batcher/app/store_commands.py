"""`batcher models`: lists, fetches, puts and removes versions of models in a store.

For people at a terminal, and for training scripts: every command says what it did in lines, and
ends with status 1 and the reason where it could not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click

from batcher.core.names import is_number, name_fault
from batcher.errors import ConfigError
from batcher.serving.repository.listing import titled
from batcher.serving.repository.stores.address import check_address, is_store
from batcher.serving.repository.stores.download import Download
from batcher.serving.repository.stores.folder import FolderStore
from batcher.serving.repository.stores.opening import open_bucket, open_store
from batcher.serving.repository.stores.pushing import push, remove
from batcher.serving.repository.stores.store import Store, WritableStore
from batcher.serving.repository.stores.versions import (
    Key,
    StoredVersion,
    misnamed_in,
    versions_in,
)


@click.group(name="models")
def models_command() -> None:
    """List, fetch, put and remove models in a store.

    STORE is s3://…, gs://…, az://…, https://… (to read from) or a folder.
    """


def _explained(command: Callable[..., None]) -> Callable[..., None]:
    """Have failures end the command with their reason alone."""

    @wraps(command)
    def run(*arguments: Any, **named: Any) -> None:
        try:
            command(*arguments, **named)
        except (ConfigError, OSError) as err:
            raise click.ClickException(str(err)) from err

    return run


@models_command.command(name="ls")
@click.argument("store")
@click.argument("model", default="")
@_explained
def list_models(store: str, model: str) -> None:
    """List the versions in STORE, or those of MODEL alone, with their files and bytes."""
    address, opened = _opened(store)
    files = opened.list("")
    found, faults = versions_in(address, files)
    shown = [version for version in found if model in ("", version.name)]
    for version in shown:
        click.echo(f"{version.title}  {len(version.files)} files  {version.nbytes:,} bytes")
    if not shown:
        click.echo(f"{address} has no version of {model or 'any model'}", err=True)
    _tell_faults({**misnamed_in(files), **faults}, model)


@models_command.command(name="pull")
@click.argument("store")
@click.argument("version", metavar="MODEL[/VERSION]")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder of models that the version is put into.",
)
@_explained
def pull_version(store: str, version: str, to: Path) -> None:
    """Fetch a version, the newest if none is named, into TO/MODEL/VERSION.

    A fetch that was broken off goes on where it was.
    """
    address, opened = _opened(store)
    found = _chosen(address, opened, version)
    target = to / found.name / found.version
    if target.exists():
        raise ConfigError(f"{str(target)!r}: expected a new folder; there is one")
    partial = target.with_name(f".{found.version}.{found.digest}")
    notes = target.with_name(f".{found.version}.{found.digest}.notes")
    Download(opened, found, lambda text: click.echo(f"{found.title}: {text}", err=True)).run(
        partial, notes
    )
    _put(found, partial, target)
    shutil.rmtree(notes, ignore_errors=True)
    click.echo(f"{found.title} is in {target}")


@models_command.command(name="push")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("store")
@click.option("--name", help="Name of the model; that of the folder if left out.")
@click.option(
    "--version",
    type=click.IntRange(min=0),
    help="Number of the version; that of FOLDER, or the one after the newest in STORE.",
)
@_explained
def push_version(folder: Path, store: str, name: str | None, version: int | None) -> None:
    """Put the version in FOLDER into STORE: model.yaml last, so that nobody serves half of it.

    FOLDER holds a model.yaml. MODEL/VERSION is the name of the folder, as in models/digits/3, or
    MODEL alone. Also puts a SHA256SUMS, by which servers check what they fetch.
    """
    address, opened = _opened_to_write(store)
    folder = folder.absolute()
    is_numbered = is_number(folder.name)
    if version is None and is_numbered:
        version = int(folder.name)
    title = name or (folder.parent.name if is_numbered else folder.name)
    done = push(opened, address, folder, title, version, lambda text: click.echo(text, err=True))
    click.echo(f"{done} is in {address}")


@models_command.command(name="rm")
@click.argument("store")
@click.argument("version", metavar="MODEL/VERSION")
@_explained
def remove_version(store: str, version: str) -> None:
    """Remove one version from STORE: model.yaml first, so that nobody serves half of it."""
    address, opened = _opened_to_write(store)
    name, number = _parsed(version)
    if number is None:
        raise ConfigError(f"expected MODEL/VERSION, as in digits/3; got {version!r}")
    count = remove(opened, address, name, number)
    click.echo(f"{name}/{number} is removed from {address}, {count} files")


def _tell_faults(faults: Mapping[Key, str], model: str) -> None:
    """Tell why versions are left out; of `model` alone if it is named."""
    for key, reason in faults.items():
        if model in ("", key[0]):
            click.echo(f"{titled(key)} is left out: {reason}", err=True)


def _put(version: StoredVersion, fetched: Path, target: Path) -> None:
    """Put what was `fetched` of a version to `target`, and Triton's files above it. Raises OSError.

    Raises ConfigError: other files are above it.
    """
    if not version.inner:
        fetched.rename(target)
        return
    above = {path: target.with_name(path.name) for path in fetched.iterdir() if path.is_file()}
    for path, there in above.items():
        if there.exists() and there.read_bytes() != path.read_bytes():
            raise ConfigError(f"{str(there)!r}: expected the file of {version.title}; got another")
    for path, there in above.items():
        path.replace(there)
    (fetched / version.inner).rename(target)
    shutil.rmtree(fetched)


def _opened(store: str) -> tuple[str, Store]:
    """Return the address of `store`, and the store. Raises ConfigError."""
    if not is_store(store):
        if not Path(store).is_dir():
            raise ConfigError(f"STORE: expected a folder or an address; there is no {store!r}")
        return str(Path(store).absolute()), FolderStore(Path(store))
    address = check_address(store, "STORE")
    return address, open_store(address)


def _opened_to_write(store: str) -> tuple[str, WritableStore]:
    if not is_store(store):
        return str(Path(store).absolute()), FolderStore(Path(store))
    address = check_address(store, "STORE")
    if address.startswith("https:"):
        raise ConfigError("STORE: expected a bucket or a folder; a web server takes no files")
    return address, open_bucket(address)


def _parsed(version: str) -> tuple[str, int | None]:
    """Return the model and the number in MODEL/VERSION; None without a number."""
    name, slash, number = version.partition("/")
    # Without a name it would be a version of any model: scripts have variables that are empty.
    if name_fault(name) or (slash and not is_number(number)):
        raise ConfigError(f"expected MODEL/VERSION, as in digits/3; got {version!r}")
    return name, int(number) if slash else None


def _chosen(address: str, store: Store, version: str) -> StoredVersion:
    name, number = _parsed(version)
    there, faults = versions_in(address, store.list(name))
    _tell_faults(faults, name)
    found = [one for one in there if one.name == name and number in (None, int(one.version))]
    if not found:
        raise ConfigError(f"{address}: expected a version that is there; got {version!r}")
    return max(found, key=lambda one: int(one.version))
