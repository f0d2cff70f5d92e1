"""The models on disk: a folder a model, and in that folder one for each version, a number.

A model's folder that holds a `model.yaml` itself, and no folder of a version, is version 1. In the
place of a `model.yaml` there may be TensorFlow's `saved_model.pb`, or Triton's `config.pbtxt` above
the version.

What cannot be read is left out and named: a repository may be a volume with a `lost+found`, or hold
a link that leads nowhere. Only a model that a setting names must be readable. What is no model, but
was probably meant to be one, is left out and named too (`left_out.py`).

Of a store nothing is looked at here: what it lists was asked for before (`stores/`), and its
versions have their folders in the cache.

The functions here read the disk, and so does `source.py`. The server calls them on a thread of
their own (`disk.py`), since a mounted disk may take a millisecond for each look; commands call them
as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from batcher.config.model_file import ModelDefinition, is_defined, load_model_definition
from batcher.config.model_settings import ModelOverrides, ModelSettings
from batcher.config.settings import ServerSettings
from batcher.config.single_file import SingleFile, name_of, split_entry
from batcher.config.triton.model_config import settings_of
from batcher.core.names import is_number, name_fault
from batcher.errors import ConfigError
from batcher.models.describing.describe import define_single
from batcher.models.describing.file_kinds import missing
from batcher.serving.repository.left_out import (
    DEFINITION,
    MODEL_SUFFIXES,
    is_like_version,
    is_no_model,
    misnamed_versions,
    reason_of_file,
    reason_of_model,
    reason_of_name,
    reason_of_number,
    reason_of_version,
)
from batcher.serving.repository.listing import Known, Listing, ModelFolder, Reasons, reason_for
from batcher.serving.repository.stores.address import is_store, plain_address
from batcher.serving.repository.stores.one_file import FileAddress, file_address
from batcher.serving.repository.stores.stores import Place, StoreListing
from batcher.serving.repository.version_folders import (
    Version,
    model_folders,
    numbered_folders,
    version_folders,
)

_NOTHING: Known = MappingProxyType({})


def find_models(
    settings: ServerSettings, base: Path, known: Known = _NOTHING, lenient: bool = False
) -> Listing:
    """List every version of every model, in the repositories or at a path of its own.

    `settings` say where to look; relative paths start from the folder `base`, usually that of the
    configuration file. `known` is what is known of the stores that `settings` name. A model that
    `settings` name and that cannot be read is an error, or if `lenient` among the unread.

    Raises ConfigError: a repository is missing, or such a model.
    """
    there = _models_of_repositories(settings, base, known)
    for name in settings.models:
        try:
            there.models[name] = _of_settings(name, settings, base, known, there)
        except ConfigError as err:
            if not lenient:
                raise
            there.models.pop(name, None)
            there.unread[name, ""] = str(err)
    named = [(name, there.models[name]) for name in settings.models if name in there.models]
    absent = [line for each in named for line in _absent(*each, settings)]
    folders = [folder for folders in there.models.values() for folder in folders]
    return Listing(folders, there.unread, there.misplaced, absent)


def _of_settings(
    name: str, settings: ServerSettings, base: Path, known: Known, there: Found
) -> list[ModelFolder]:
    """Return the versions of the model `name`, which settings name; some are `there` already.

    Raises ConfigError.
    """
    own, place = settings.models[name], f"{settings.origin('models', name)}: models"
    _check_name(name, place)
    if own.path is not None:
        return _at_path(name, own, base, f"{place}.{name}", known)
    if name not in there.models:
        raise ConfigError(f"{place}.{name}: {_not_there(name, there)}")
    return there.models[name]


def _not_there(name: str, there: Found) -> str:
    """Return what is wrong with a setting of the model `name`, which is not among those `there`."""
    if why := reason_for(name, there.unread) or reason_for(name, there.misplaced):
        return f"expected a model that can be read; {why}"
    return f"no such model in the repository, which has: {', '.join(there.models) or 'none'}"


def _absent(name: str, folders: list[ModelFolder], settings: ServerSettings) -> list[str]:
    """Return which versions of the model `name` settings name that are not among `folders`."""
    there = {folder.version for folder in folders}
    return [
        f"{settings.origin('models', name)}: models.{name}: version {version}, which labels, "
        f"traffic, shadow or canary name, is not there: of this model there is "
        f"{', '.join(sorted(there, key=int))}"
        for version in sorted(settings.for_model(name).named - there, key=int)
    ]


class Found(NamedTuple):
    """What is in a repository: versions by the name of the model, what is unread, and misplaced."""

    models: dict[str, list[ModelFolder]]
    unread: Reasons
    misplaced: Reasons


_UNDERSCORE = "expected a name that begins with no `_`: such folders are passed over; rename it"
_TWICE = "expected a name of its own; a repository that is named before has a model of this name"


def _models_of_repositories(settings: ServerSettings, base: Path, known: Known) -> Found:
    """Return what is in all repositories; of models of one name, the first. Raises ConfigError."""
    all_found = Found({}, {}, {})
    for place in settings.repositories:
        if is_store(place):
            where = f"{settings.origin('model_repository')}: model_repository"
            one = _models_of_store(known.get(Place(plain_address(place), "")), where)
        else:
            one = _models_of_repository(settings, base, place)
        before = all_found.models.keys()
        all_found.misplaced.update(one.misplaced)
        all_found.misplaced.update({(name, ""): _TWICE for name in one.models.keys() & before})
        # Nobody misses what cannot be read of a model that comes from elsewhere.
        all_found.unread.update(
            {key: why for key, why in one.unread.items() if key[0] not in before}
        )
        for name in [name for name in one.models if name not in before]:
            all_found.models[name] = one.models[name]
    return all_found


def _known(listing: StoreListing | None, where: str) -> StoreListing:
    """Return what is known of a store that is named at `where`. Raises ConfigError."""
    if listing is None or listing.away:
        why = listing.away if listing is not None else "expected a store that was listed before"
        raise ConfigError(f"{where}: {why}")
    return listing


def _models_of_store(listing: StoreListing | None, where: str) -> Found:
    """Return what is in a store. Raises ConfigError: nothing is known of it."""
    listing = _known(listing, where)
    models: dict[str, list[ModelFolder]] = {}
    for folder in _stored_folders(listing):
        models.setdefault(folder.name, []).append(folder)
    return Found(models, dict(listing.unread), dict(listing.waiting))


def _stored_folders(listing: StoreListing) -> list[ModelFolder]:
    return [
        ModelFolder(each.name, each.version, each.folder_in(listing.cache), stored=each)
        for each in listing.versions
    ]


def _at_store_path(
    listing: StoreListing | None, where: str, one: FileAddress | None
) -> list[ModelFolder]:
    """Return the versions of a model whose path is a folder in a store, or `one` file there.

    Raises ConfigError.
    """
    listing = _known(listing, where)
    folders = _stored_folders(listing)
    if not folders:
        reasons = [*listing.unread.values(), *listing.waiting.values()]
        if one is not None:
            why = "; ".join(reasons) or "there is none"
            raise ConfigError(f"{where}: expected the file {one.file!r} in {one.folder}; {why}")
        why = "; ".join(reasons) or f"there is no {DEFINITION}"
        raise ConfigError(
            f"{where}: expected version folders (1, 2, …) with a {DEFINITION} in the store, or a "
            f"{DEFINITION} itself; got none: {why}"
        )
    return folders


def _models_of_repository(settings: ServerSettings, base: Path, place: str) -> Found:
    """Return what is in the folder `place`. Raises ConfigError."""
    found: dict[str, list[ModelFolder]] = {}
    unread: Reasons = {}
    misplaced: Reasons = {}
    for entry in _entries_of_repository(settings, base, place):
        faults: dict[str, str] = {}
        versions = version_folders(entry, faults)
        unread.update({(entry.name, version): reason for version, reason in faults.items()})
        if is_no_model(entry.name):
            if versions and entry.name.startswith("_"):
                misplaced[entry.name, ""] = _UNDERSCORE
            continue
        if not faults:
            reasons = _reasons(entry, versions)
            misplaced.update({(entry.name, name): reason for name, reason in reasons.items()})
            if "" in reasons:
                continue
        if versions:
            try:
                _check_name(entry.name, f"{entry.parent}")
                found[entry.name] = model_folders(entry.name, versions, str(entry))
            except ConfigError as err:  # it keeps no other model from serving
                unread[entry.name, ""] = str(err)
    return Found(found, unread, misplaced)


def _reasons(entry: Path, versions: list[Version]) -> dict[str, str]:
    """Return why what lies in `entry` of the repository is no version, by its name.

    The name is empty for `entry` itself.
    """
    if not entry.is_dir():
        reason = reason_of_file(entry) if entry.is_file() else ""
        return {"": reason} if reason else {}
    numbered = numbered_folders(entry)
    if not versions:
        return {"": reason_of_model(entry, numbered)}
    if versions[0].folder == entry:
        return {"": reason_of_number(entry.name)} if is_like_version(entry.name) else {}
    known = {version.folder for version in versions}
    empty = {each.name: reason_of_version(each) for each in numbered if each not in known}
    return empty | {each.name: reason_of_name(each.name) for each in misnamed_versions(entry)}


def _at_path(
    name: str, own: ModelOverrides, base: Path, place: str, known: Known = MappingProxyType({})
) -> list[ModelFolder]:
    """Return the versions of a model that has a path of its own. Raises ConfigError."""
    sample = base / own.sample if own.sample is not None else None
    said_of_file = own.inputs, own.outputs, sample
    if is_store(str(own.path)):
        address = plain_address(str(own.path))
        one = file_address(address)
        folders = _at_store_path(known.get(Place(address, name)), place, one)
        if one is not None:
            return [
                replace(each, single=SingleFile(each.folder / one.file, one.entry, *said_of_file))
                for each in folders
            ]
        _check_unsaid(own, place, address)
        return folders
    path, entry = split_entry(base / str(own.path))
    if entry or _is_of_file(path, place):
        single = SingleFile(path.absolute(), entry, *said_of_file)
        return [ModelFolder(name, "1", path.parent, single)]
    _check_unsaid(own, place, path.name)
    return _model_folders(name, path, place)


def _is_of_file(path: Path, place: str) -> bool:
    """Return whether `path`, which is named at `place`, is that of one file. Raises ConfigError."""
    try:
        return path.is_file() or (path.suffix in MODEL_SUFFIXES and not path.is_dir())
    except OSError as err:
        raise ConfigError(f"{place}: expected a path that can be read; {err}") from err


def _check_unsaid(own: ModelOverrides, place: str, folder: str) -> None:
    """Check that nothing is said of a path to a `folder` that its model.yaml says."""
    if said := [key for key in ("inputs", "outputs", "sample") if getattr(own, key) is not None]:
        raise ConfigError(
            f"{place}: expected {said[0]} in the model.yaml of {folder!r}, which is a folder; "
            "here it is said of a path to one file"
        )


def define(folder: ModelFolder, trusted: bool) -> ModelDefinition:
    """Return what the `model.yaml` in `folder` says, or the single file. Raises ConfigError."""
    if folder.single is not None:
        return define_single(folder.single, folder.name, folder.version, trusted)
    try:
        return load_model_definition(folder.name, folder.version, folder.folder)
    except OSError as err:  # such as a name in `model.yaml` that is too long for any file
        raise ConfigError(f"{folder.folder}: expected files that can be read; {err}") from err


def settings_for(folder: ModelFolder, settings: ServerSettings) -> ModelSettings:
    """Return the settings of the model in `folder`, those of a `config.pbtxt` included.

    Raises ConfigError: two of the settings contradict each other.
    """
    beside = {} if folder.single is not None else settings_of(folder.folder, folder.name)
    return settings.for_model(folder.name, beside)


def _entries_of_repository(settings: ServerSettings, base: Path, place: str) -> list[Path]:
    """Return what lies in the folder `place`. Raises ConfigError."""
    repository = base / place
    where = f"{settings.origin('model_repository')}: model_repository"
    try:
        if repository.is_dir():
            return sorted(repository.iterdir())
    except OSError as err:
        raise ConfigError(f"{where}: expected a folder that can be read: {err}") from err
    if "model_repository" in settings.model_fields_set:
        raise ConfigError(f"{where}: expected a folder; there is no {place!r}")
    return []


def _check_name(name: str, place: str) -> None:
    if fault := name_fault(name):
        raise ConfigError(
            f"{place}: expected names of models that fit into a path; got {name!r}: {fault}"
        )


def find_versions(folder: Path, settings: ServerSettings, base: Path) -> list[ModelFolder]:
    """List the versions of the model in `folder`.

    A `folder` that holds a `model.yaml` itself is one version, and so is a single file. The model
    has the name by which `settings` give that path, else the name of its folder.

    Args:
        folder: of a model or of a version.
        settings: may name the model's path.
        base: the folder that relative paths in `settings` start from.

    Raises:
        ConfigError: there is neither a `model.yaml` nor a version folder in it.
    """
    if split_entry(folder)[0].is_file():
        return _of_single(folder.absolute(), settings, base)
    folder = folder.resolve()
    alone = is_defined(folder)
    model = folder.parent if alone and is_number(folder.name) else folder
    named = {(base / own.path).resolve(): name for name, own in settings.models.items() if own.path}
    name = named.get(model, model.name)
    if not alone:
        return _model_folders(name, folder, str(folder))
    return [ModelFolder(name, str(int(folder.name)) if is_number(folder.name) else "1", folder)]


def _of_single(path: Path, settings: ServerSettings, base: Path) -> list[ModelFolder]:
    """Return the only version of a single file, which `settings` may say more of."""
    name = name_of(split_entry(path)[0])
    known = settings.models.get(name) or ModelOverrides()
    return _at_path(name, known.model_copy(update={"path": str(path)}), base, str(path))


def _model_folders(name: str, folder: Path, place: str) -> list[ModelFolder]:
    """Return the versions in `folder`, of a model that is named at `place`. Raises ConfigError."""
    faults: dict[str, str] = {}
    versions = version_folders(folder, faults)
    if faults:
        raise ConfigError(
            f"{place}: expected folders that can be read; {'; '.join(faults.values())}"
        )
    if not versions:
        what = folder.name
        is_there = folder.is_dir()
        why = reason_of_model(folder, numbered_folders(folder)) if is_there else missing(folder)
        raise ConfigError(
            f"{place}: expected version folders (1, 2, …) with a {DEFINITION} in {what!r}, or a "
            f"{DEFINITION} itself; got none: {why}"
        )
    return model_folders(name, versions, place)
