"""What `batcher serve TARGET` means: one file, the folder of one model, or a repository.

    TARGET                                     is served
    net.onnx, net.pt2, net.pt, model.py[:Net]  that file, as a model of the file's name
    a folder with a model.yaml, a SavedModel,  that model
    or folders of versions with one
    any other folder                           as the repository of models
    s3://bucket/net.onnx, gs://…, az://…, …    that file, from the store
    any other address                          as the repository; with --name, as a model's folder

Without `-c` the target is served alone, and a `config.yaml` in the working directory is not read:
one file needs no settings, and settings of other models would not fit. With `-c` a model is served
beside those of the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batcher.config.model_file import is_defined
from batcher.config.single_file import name_of, split_entry
from batcher.core.names import is_number
from batcher.errors import ConfigError
from batcher.models.describing.file_kinds import check_served, kind_of
from batcher.serving.repository.stores.address import check_address, is_store
from batcher.serving.repository.stores.one_file import file_address

Flags = dict[tuple[str, ...], tuple[str, object]]
"""From a setting's path to the name of a flag and the value that the flag sets."""


class Said(NamedTuple):
    """What is said of a target on the command line.

    Attributes:
        name: the model's name; None for that of the file or folder.
        inputs: what is declared of a single file, each as `NAME=FP32[3]`.
        outputs: the same of the outputs.
        sample: a first example of a single file.
    """

    name: str | None = None
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    sample: Path | None = None

    @property
    def is_of_file(self) -> bool:
        """Whether something is said that only a single file needs."""
        return bool(self.inputs or self.outputs or self.sample)


def target_flags(target: str, said: Said, alone: bool) -> Flags:
    """Return the settings that serve `target`, and nothing else if it is to be served `alone`.

    Raises:
        ConfigError: the target is not there, or holds no model.
    """
    if is_store(target):
        return _in_store(target, said, alone)
    path, entry = split_entry(Path(target).absolute())
    is_folder = path.is_dir()
    _check_said(target, said, is_folder)
    if is_folder and not is_model(path):
        return {("model_repository",): (target, str(path))}
    if not is_folder:
        kind_of(path)  # what can be said at once is said before anything starts
    # The folder of a version has the model's name above it.
    folder = path.parent if is_number(path.name) else path
    title = said.name or (folder.name if is_folder else name_of(path))
    return _of_model(target, title, f"{path}:{entry}" if entry else str(path), said, alone)


def _in_store(target: str, said: Said, alone: bool) -> Flags:
    """Return the settings that serve what is at an address; the store is asked at the start."""
    address = check_address(target, "TARGET")
    file = file_address(address)
    check_served(address.rpartition("/")[2])
    _check_said(target, said, file is None)
    title = said.name or (name_of(Path(file.file)) if file is not None else "")
    if not title:
        return {("model_repository",): (target, address)}
    return _of_model(target, title, address, said, alone)


def _check_said(target: str, said: Said, is_folder: bool) -> None:
    """Check that nothing is said of a folder that its model.yaml says. Raises ConfigError."""
    if is_folder and said.is_of_file:
        raise ConfigError(
            f"{target}: expected one file for --input, --output and --sample; got a folder, whose "
            "model.yaml says them"
        )


def _of_model(target: str, title: str, path: str, said: Said, alone: bool) -> Flags:
    """Return the settings that serve the model `title` at `path`."""
    own = {"path": path, **_of_file(said)}
    flags: Flags = {("models", title, key): (target, value) for key, value in own.items()}
    if alone:
        flags["model_repository",] = (target, None)
    return flags


def _of_file(said: Said) -> dict[str, Any]:
    """Return what is said of a single file, as settings."""
    own: dict[str, Any] = {}
    if said.inputs:
        own["inputs"] = declared(said.inputs, "--input")
    if said.outputs:
        own["outputs"] = declared(said.outputs, "--output")
    if said.sample is not None:
        own["sample"] = str(said.sample.absolute())
    return own


def is_model(folder: Path) -> bool:
    """Return whether `folder` is that of one model: a version, or one with versions in it."""
    versions = (each for each in folder.iterdir() if is_number(each.name))
    return is_defined(folder) or any(map(is_defined, versions))


def declared(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Return tensors by name that an `option` gave as `NAME=DTYPE[SHAPE]`. Raises ConfigError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option}: expected NAME=DTYPE[SHAPE], as x=FP32[784]; got {pair!r}")
        if name in found:
            raise ConfigError(
                f"{option}: expected each name once; got {name} twice, {found[name]} and {text}"
            )
        found[name] = text
    return found
