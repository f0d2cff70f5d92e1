"""What is read from disk before models change: at start, at a load, and at a reload.

Every function here reads the disk and runs on the disk's thread. What the loop knows at that time
is handed over as a value, and what was read comes back as a value.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import Logger

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.config.traffic import Latest
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Progress
from batcher.serving.canaries.records import kept_versions
from batcher.serving.repository.folders import find_models, settings_for
from batcher.serving.repository.listing import Known, Listing, ModelFolder, reason_for
from batcher.serving.repository.looks import Looks, nothing_left
from batcher.serving.repository.source import VersionSource, source_of
from batcher.serving.repository.stores.address import is_store
from batcher.serving.repository.stores.versions import Key
from batcher.workers.thread import ModelLoader

_log = Logger()


class FoundVersion(NamedTuple):
    """A version as it stands on disk.

    Attributes:
        source: what it is loaded from.
        definition: what its `model.yaml` says; None if the file is wrong, or was not read since
            nothing has changed.
        fault: what is wrong with the file; empty if nothing is.
    """

    source: VersionSource
    definition: ModelDefinition | None = None
    fault: str = ""

    @property
    def is_read(self) -> bool:
        """Whether `model.yaml` was read."""
        return self.definition is not None or bool(self.fault)

    def or_failure(
        self, instances: int
    ) -> tuple[ModelDefinition, ModelSettings, ModelLoader | None]:
        """Return what to add to a server in which `instances` share the cores.

        A version whose definition is wrong fails to load, and keeps the reason visible.
        """
        settings = self.source.settings_among(instances)
        if self.definition is not None:
            return self.definition, settings, None
        (name, version), folder = self.source.key, self.source.folder.folder
        fault = self.fault

        def load(progress: Progress) -> CheckedModel:
            raise ModelLoadError(f"model {name!r} version {version}: {fault}")

        spec = ModelSpec(name, version, (), ())
        return ModelDefinition(spec, "python", folder, folder), settings, load


class Standing(NamedTuple):
    """What serves when a reload begins.

    Attributes:
        seen: names of the models that the server knows.
        up: names of those that have a version which was not taken out of service.
        sources: sources of the versions that were not taken out of service, by name and version.
        overrides: what clients had overridden, by name and version.
    """

    seen: frozenset[str]
    up: frozenset[str]
    sources: dict[Key, VersionSource]
    overrides: dict[Key, dict[str, Any]]


class Change(NamedTuple):
    """What the disk and other settings mean for the models.

    Attributes:
        coming: versions to load.
        staying: names and versions of what may go on to serve.
        instances: how many instances of all models share the cores afterwards.
        listing: all that was found.
        model: name of the only model that changes; empty if any may change.
    """

    coming: list[FoundVersion]
    staying: frozenset[Key]
    instances: int
    listing: Listing
    model: str = ""

    def of(self, name: str) -> Change:
        """Return what changes of the model `name` alone."""
        return self._replace(
            coming=[found for found in self.coming if found.source.key[0] == name], model=name
        )


class Seen(NamedTuple):
    """What a look has shown.

    Attributes:
        names: of the models that seem to have changed.
        warnings: for the log.
        left_out: why something in the repository is not served, by its path there.
    """

    names: list[str]
    warnings: list[str]
    left_out: dict[str, str]


def at_look(
    settings: ServerSettings, base: Path, standing: Standing, known: Known, looks: Looks
) -> Seen:
    """Return what has changed since the look before. Raises ConfigError. Disk thread."""
    listing = find_sound(settings, base, known)
    up = {name for name, _ in standing.sources}
    warnings = listing.warnings(standing.sources)
    if reason := nothing_left(listing, up):
        return Seen([], [reason, *warnings], listing.left_out)
    wanted = at_reload_wanted(settings, listing, standing)
    return Seen(looks.changed(wanted, up, time.monotonic()), warnings, listing.left_out)


def find_sound(settings: ServerSettings, base: Path, known: Known) -> Listing:
    """Return what `find_models` finds; what one model lacks holds up no other one.

    Among the unread are models that settings name and that are not there, and those whose settings
    contradict each other: of `config.yaml` and `config.pbtxt` each may be right by itself.

    Raises ConfigError: a repository is missing. Disk thread, or that of the stores.
    """
    listing = find_models(settings, base, known, lenient=True)
    by_name = _by_name(listing.folders)
    unread = dict(listing.unread)
    for name, folders in by_name.items():
        try:
            for each in served(folders, settings):
                settings_for(each, settings)
        except ConfigError as err:
            unread[name, ""] = str(err)
    for name in settings.load_at_start or ():
        if name not in by_name:
            place = f"{settings.origin('load_at_start')}: load_at_start"
            unread.setdefault((name, ""), f"{place}: it is not there")
    sound = [folder for folder in listing.folders if (folder.name, "") not in unread]
    return listing._replace(folders=sound, unread=unread)


def at_start(
    settings: ServerSettings, base: Path, known: Known
) -> tuple[list[FoundVersion], Listing]:
    """Return the versions that serve from the start, and all that was found.

    Raises ConfigError. Disk thread.
    """
    listing = find_models(settings, base, known)
    _check_any(settings, listing)
    folders = loaded_at_start(settings, listing)
    versions = [_define(source_of(folder, settings, {})) for folder in folders]
    return versions, listing


def _check_any(settings: ServerSettings, listing: Listing) -> None:
    """Check that a place in a store is no empty one: a mistyped address is as empty as any.

    Not where models may come later. Raises ConfigError.
    """
    places = settings.repositories
    may_come = settings.watch_repository_s or settings.model_control == "explicit"
    is_empty = not (listing.folders or listing.unread or listing.misplaced)
    if is_empty and places and all(map(is_store, places)) and not may_come:
        raise ConfigError(
            f"{settings.origin('model_repository')}: model_repository: expected models in "
            f"{', '.join(places)}, such as NAME/1/model.yaml; there is none: look at the address, "
            "put one there with `batcher models push`, or set watch_repository_s to wait for the "
            "first one"
        )


def at_load(
    folder: ModelFolder,
    settings: ServerSettings,
    overrides: dict[str, Any],
    known: VersionSource | None,
) -> FoundVersion:
    """Return the version in `folder`, without its definition if it is still as `known`.

    Raises ConfigError: the model's settings contradict each other. Disk thread.
    """
    source = source_of(folder, settings, overrides, known)
    return FoundVersion(source) if source == known else _define(source)


def at_reload(settings: ServerSettings, base: Path, standing: Standing, known: Known) -> Change:
    """Return what changes under other `settings` and by the files. Raises ConfigError.

    Disk thread.
    """
    listing = find_models(settings, base, known)
    _check_at_start(settings, listing)
    return _compared(settings, standing, listing)


def after_look(settings: ServerSettings, base: Path, standing: Standing, known: Known) -> Change:
    """Return what changes by the files, of models that are sound. Raises ConfigError.

    Disk thread.
    """
    return _compared(settings, standing, find_sound(settings, base, known))


def _compared(settings: ServerSettings, standing: Standing, listing: Listing) -> Change:
    """Return what changes where `listing` is what is there. Raises ConfigError."""
    wanted = at_reload_wanted(settings, listing, standing)
    sources = [
        source_of(folder, settings, standing.overrides.get(key, {}), standing.sources.get(key))
        for folder, key in ((folder, (folder.name, folder.version)) for folder in wanted)
    ]
    coming = [source for source in sources if source != standing.sources.get(source.key)]
    staying = listing.folders if settings.model_control == "explicit" else wanted
    # What serves goes on where its folder cannot be read for a while.
    unread = {key for key in standing.sources if not listing.unread.keys().isdisjoint(_names(key))}
    going_on = unread - {source.key for source in sources}
    return Change(
        [_define(source) for source in coming],
        frozenset((folder.name, folder.version) for folder in staying) | unread,
        sum(source.instances for source in sources)
        + sum(standing.sources[key].instances for key in going_on),
        listing,
    )


def _names(key: Key) -> tuple[Key, Key]:
    """Return the keys in `Listing.unread` that a version stands under."""
    return key, (key[0], "")


def _define(source: VersionSource) -> FoundVersion:
    single = source.folder.single
    if single is not None:
        # In a process of its own, one file after the other: seconds of each.
        _log.info("model {name}: describing {file}", name=source.folder.name, file=single.file.name)
    try:
        return FoundVersion(source, source.define())
    except ConfigError as err:
        return FoundVersion(source, fault=str(err))


def at_reload_wanted(
    settings: ServerSettings, listing: Listing, standing: Standing
) -> list[ModelFolder]:
    """Return the versions that are to serve.

    Where clients load and unload models, a model that a client has loaded or unloaded is left as it
    is.
    """
    from_start = _from_start(settings, listing)
    if settings.model_control == "none":
        return from_start
    return [
        folder
        for folder in served(listing.folders, settings)
        if folder.name in standing.up or (folder.name not in standing.seen and folder in from_start)
    ]


def loaded_at_start(settings: ServerSettings, listing: Listing) -> list[ModelFolder]:
    """Return the versions in `listing` that serve from the start. Raises ConfigError."""
    _check_at_start(settings, listing)
    return _from_start(settings, listing)


def _from_start(settings: ServerSettings, listing: Listing) -> list[ModelFolder]:
    folders, wanted = served(listing.folders, settings), settings.load_at_start
    return [folder for folder in folders if wanted is None or folder.name in wanted]


def _check_at_start(settings: ServerSettings, listing: Listing) -> None:
    """Check that the models of `load_at_start` are there. Raises ConfigError."""
    known = {folder.name for folder in listing.folders}
    for name in settings.load_at_start or ():
        if name not in known:
            expected = f"load_at_start: expected of {', '.join(sorted(known)) or 'none'}"
            why = reason_for(name, listing.unread) or reason_for(name, listing.misplaced)
            raise ConfigError(
                f"{settings.origin('load_at_start')}: {expected}; got {name!r}"
                f"{', which cannot be read: ' * bool(why)}{why}"
            )


def served(folders: list[ModelFolder], settings: ServerSettings) -> list[ModelFolder]:
    """Return those of `folders` whose versions the setting `versions` lets serve.

    Raises ConfigError: the setting names a version that is not there.
    """
    chosen = {
        name: _chosen(name, of_model, settings) for name, of_model in _by_name(folders).items()
    }
    return [folder for folder in folders if folder.version in chosen[folder.name]]


def _by_name(folders: list[ModelFolder]) -> dict[str, list[ModelFolder]]:
    """Return the `folders` of each model."""
    found: dict[str, list[ModelFolder]] = {}
    for folder in folders:
        found.setdefault(folder.name, []).append(folder)
    return found


def _chosen(name: str, of_model: list[ModelFolder], settings: ServerSettings) -> Collection[str]:
    """Return which of the versions `of_model`, called `name`, may serve. Raises ConfigError."""
    there = [folder.version for folder in of_model]
    # One `config.pbtxt` stands above all versions; of a store it is there with each that is.
    known = next((folder for folder in of_model if folder.folder.is_dir()), of_model[0])
    own = settings_for(known, settings)
    if own.versions == "all":
        return there
    kept = kept_versions(settings.records.get(name)) if own.canary is not None else set()
    named = own.named | kept
    if own.versions == "latest" or isinstance(own.versions, Latest):
        newest = 1 if own.versions == "latest" else own.versions.latest
        return {*sorted(there, key=int)[-newest:], *named}
    chosen = [str(version) for version in own.versions]
    if missing := [version for version in chosen if version not in there]:
        raise ConfigError(
            f"model {name!r}: versions: expected of {', '.join(there)}; got {', '.join(missing)}"
        )
    return {*chosen, *named}
