"""The versions of models in the listing of a store.

    name of a file in the store       is
    digits/3/net.onnx                 a file of version 3 of the model `digits`
    digits/model.yaml                 version 1 of a model that has no numbered folders
    net/3/saved_model.pb              a SavedModel, with or without a model.yaml beside it
    net/config.pbtxt and net/3/…      Triton's: version 3 and the files above it
    anything else                     no model's

A version is known by its listing: names, sizes and tags of its files. Another listing is another
version of the same number, and has a folder of its own in the cache, beside the one that serves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from batcher.config.saved_model.signatures import FILE as SAVED_MODEL
from batcher.config.triton.model_config import CONFIG
from batcher.core.names import is_number, name_fault
from batcher.serving.repository.left_out import DEFINITION, is_no_model, reason_of_name
from batcher.serving.repository.stores.names import names_fault
from batcher.serving.repository.stores.one_file import file_address
from batcher.serving.repository.stores.store import StoredFile

DEFINITIONS = (DEFINITION, SAVED_MODEL)
"""The files each of which makes a folder a version."""

Key = tuple[str, str]
"""Name and version."""


@dataclass(frozen=True)
class StoredVersion:
    """One version of a model in a store.

    Attributes:
        store: address of the store.
        name: the model's name.
        version: its version, a decimal number as text without leading zeros.
        prefix: the version's folder in the store; empty for the root.
        files: the files of the version, named from that folder, sorted.
        inner: the version's own folder in that one, where files beside it belong to the version:
            `config.pbtxt` and those that it names. Empty for all other versions.
    """

    store: str
    name: str
    version: str
    prefix: str
    files: tuple[StoredFile, ...]
    inner: str = ""

    @cached_property
    def digest(self) -> str:
        """What this listing is known by: other content has another digest."""
        lines = [f"{file.name}\0{file.size}\0{file.tag}" for file in self.files]
        text = "\n".join([self.store, self.prefix, self.name, self.version, *lines])
        # A store may send as a tag what is no UTF-8.
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def key(self) -> Key:
        """Name and version."""
        return self.name, self.version

    @property
    def title(self) -> str:
        """Name and version for logs."""
        return f"{self.name}/{self.version}"

    def root_in(self, cache: Path) -> Path:
        """Return where the files of the version are in the folder `cache`, once they are there."""
        files = cache / self.digest / "files" / self.name
        return files if self.inner else files / self.version

    def folder_in(self, cache: Path) -> Path:
        """Return where the version is in the folder `cache`, once it is there."""
        return self.root_in(cache) / self.inner

    def own(self, name: str) -> str:
        """Return how the file `name` of the version's own folder is named among `files`."""
        return f"{self.inner}/{name}" if self.inner else name

    def in_store(self, file: StoredFile) -> StoredFile:
        """Return `file` of this version under the name that it has in the store."""
        return file._replace(name=f"{self.prefix}/{file.name}" if self.prefix else file.name)


def versions_in(
    store: str, files: Iterable[StoredFile], model: str = ""
) -> tuple[list[StoredVersion], dict[Key, str]]:
    """Return the versions in a listing of `store`, and why versions are left out.

    Args:
        store: the store's address; of one that is one file these files are version 1.
        files: all files of the store.
        model: name of the model whose folder the store's root is; empty for a repository of models.
    """
    if model and file_address(store) is not None:
        return _of_one_file(_version(store, model, "1", "", list(files)))
    found, faults = list[StoredVersion](), dict[Key, str]()
    for name, inside in sorted(_by_model(files, model).items()):
        if fault := _model_fault(name, [rest for rest, _ in inside]):
            faults[name, ""] = fault
            continue
        versions = _versions_of(store, name, "" if model else f"{name}/", inside)
        numbers = Counter(version.version for version in versions)
        for version in versions:
            if fault := _fault(version, numbers):
                faults[version.key] = fault
            else:
                found.append(version)
    return found, faults


def misnamed_in(files: Iterable[StoredFile], model: str = "") -> dict[Key, str]:
    """Return why folders with a `model.yaml` are no versions, by the model and by their names.

    The arguments are those of `versions_in`.
    """
    found = dict[Key, str]()
    for name, inside in sorted(_by_model(files, model).items()):
        names = {rest for rest, _ in inside}
        folders = {rest.partition("/")[0] for rest in names if rest.count("/") == 1}
        for folder in sorted(folders - names):
            is_named = is_number(folder) or is_no_model(folder) or _is_odd(folder)
            if not is_named and f"{folder}/{DEFINITION}" in names and DEFINITION not in names:
                found[name, folder] = reason_of_name(folder)
    return found


def _of_one_file(version: StoredVersion) -> tuple[list[StoredVersion], dict[Key, str]]:
    """Return the `version` that one file is, and why it is left out; nothing without files."""
    if fault := names_fault(file.name for file in version.files):
        return [], {version.key: fault}
    return [version] if version.files else [], {}


def _model_fault(name: str, inside: list[str]) -> str:
    """Return why no version of the model `name` is served; `inside` are its files by their names.

    What lies below `m//` or `m/../` may be a version's, and nobody can tell of which.
    """
    if fault := name_fault(name):
        return f"expected a name of a model that fits into a path: {fault}"
    return names_fault(f"{name}/{rest}" for rest in inside if _is_odd(rest))


def _is_odd(name: str) -> bool:
    """Return whether `name`, in a folder, may stand for everything in that folder."""
    return name.partition("/")[0] in ("", ".", "..")


def _fault(version: StoredVersion, numbers: Counter[str]) -> str:
    """Return why `version` is left out; `numbers` counts folders by the number of a version."""
    if numbers[version.version] > 1:
        return f"expected one folder a version; got also {version.inner or version.prefix!r}"
    return names_fault(file.name for file in version.files)


def _by_model(files: Iterable[StoredFile], model: str) -> dict[str, list[tuple[str, StoredFile]]]:
    """Return the files of each model by their names in its folder."""
    models: dict[str, list[tuple[str, StoredFile]]] = defaultdict(list)
    for file in files:
        name, slash, rest = (model, "/", file.name) if model else file.name.partition("/")
        # Some programs put an empty file where a folder is to be seen.
        if slash and rest and not rest.endswith("/") and not is_no_model(name):
            models[name].append((rest, file))
    return models


def _versions_of(
    store: str, name: str, prefix: str, inside: list[tuple[str, StoredFile]]
) -> list[StoredVersion]:
    """Return the versions of one model, by their numbers; `inside` are its files by their names."""
    folders: dict[str, list[StoredFile]] = defaultdict(list)
    for rest, file in inside:
        folder, slash, inner = rest.partition("/")
        if slash and is_number(folder) and inner:
            folders[folder].append(file._replace(name=inner))
    beside = [file._replace(name=rest) for rest, file in inside if "/" not in rest]
    is_triton = any(file.name == CONFIG for file in beside)
    found = []
    for folder, files in sorted(folders.items(), key=lambda each: int(each[0])):
        if any(file.name in DEFINITIONS or _is_odd(file.name) for file in files):
            found.append(_version(store, name, str(int(folder)), f"{prefix}{folder}", files))
        elif is_triton:
            of_model = [*beside, *(file._replace(name=f"{folder}/{file.name}") for file in files)]
            root = _version(store, name, str(int(folder)), prefix.rstrip("/"), of_model)
            found.append(replace(root, inner=folder))
    if not found and any(rest in DEFINITIONS for rest, _ in inside):
        own = [file._replace(name=rest) for rest, file in inside]
        return [_version(store, name, "1", prefix.rstrip("/"), own)]
    return found


def _version(
    store: str, name: str, version: str, prefix: str, files: list[StoredFile]
) -> StoredVersion:
    return StoredVersion(store, name, version, prefix, tuple(sorted(files)))
