"""What `model.yaml` need not say of a SavedModel, since `saved_model.pb` says it.

    in `model.yaml`              taken from the SavedModel
    no `file`                    the version's own folder, or the one folder in it that is such one
    no `signature`               `serving_default`, or the only one
    no `inputs`                  all inputs of the signature
    no `outputs`                 all outputs of the signature whose first axis counts the rows
    a tensor without `dtype`     its datatype
    a tensor without `shape`     its shape without the first axis

A SavedModel stands in the folder of a version as TensorFlow Serving has it, and needs no
`model.yaml` there. The first axis counts the rows: it is free, or 1 in every input, and then the
model runs one row at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batcher.config.reading import Source
from batcher.config.saved_model.signatures import (
    FILE,
    Signature,
    SignatureTensor,
    read_saved_model,
)
from batcher.core.error_text import brief_names
from batcher.core.spec import DATATYPES, shape_text
from batcher.errors import ConfigError

FORMAT = "savedmodel"
"""The name of the format in `model.yaml`."""

_DEFAULT = "serving_default"
"""The signature that is served where several are there and none is named."""


def is_saved_model(folder: Path) -> bool:
    """Return whether `folder` itself is a SavedModel."""
    return (folder / FILE).is_file()


def implied(folder: Path) -> Source:
    """Return what the `model.yaml` would say of the version in `folder`, a SavedModel."""
    return Source({"format": FORMAT}, {(): f"{folder.name}/{FILE}"})


def fill_in_saved_model(source: Source, folder: Path) -> None:
    """Put what the SavedModel says into the values of `source`, a `model.yaml` in `folder`.

    Nothing is done for another format.

    Raises:
        ConfigError: there is no SavedModel, or no signature of it can be served; the message says
            what to write.
    """
    values = source.values
    if values.get("format") != FORMAT:
        return
    home = _home(source, folder)
    try:
        signatures = read_saved_model(home / FILE).signatures
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"{source.origin(('file',))}: file: expected a SavedModel, as tf.saved_model.save "
            f"writes one; got {home.name}/{FILE}: {err}"
        ) from err
    name = _chosen(source, signatures)
    values["signature"] = name
    _Filling(source, signatures[name]).fill()


def _home(source: Source, folder: Path) -> Path:
    """Return the folder of the SavedModel, and name it in `source`. Raises ConfigError."""
    named = source.values.get("file")
    if isinstance(named, str):
        if is_saved_model(folder / named):
            return folder / named
        got = f"{named!r}, which holds none"
    elif is_saved_model(folder):
        return folder
    else:
        found = sorted(each.name for each in folder.iterdir() if is_saved_model(each))
        if len(found) == 1:
            source.override(("file",), found[0], source.origin(("format",)))
            return folder / found[0]
        got = f"{brief_names(found)}: write `file: {found[0]}`" if found else "none"
    raise ConfigError(
        f"{source.origin(('file',))}: file: expected a folder beside it that holds {FILE}, with "
        f"variables beside that; got {got}"
    )


def _chosen(source: Source, signatures: dict[str, Signature]) -> str:
    """Return the name of the signature that is served. Raises ConfigError."""
    named, place = source.values.get("signature"), source.origin(("signature",))
    if not signatures:
        raise ConfigError(
            f"{place}: signature: expected a SavedModel with signatures; got none: save it with "
            "`tf.saved_model.save(model, FOLDER, signatures=model.FUNCTION)`, whose function has "
            "an `input_signature`, or export it with Keras by `model.export(FOLDER)`"
        )
    known = brief_names(sorted(signatures))
    if named is not None:
        if named in signatures:
            return str(named)
        raise ConfigError(f"{place}: signature: expected one of {known}; got {named!r}")
    if _DEFAULT in signatures or len(signatures) == 1:
        return _DEFAULT if _DEFAULT in signatures else next(iter(signatures))
    raise ConfigError(
        f"{place}: signature: expected the one that is served, of {known}; got none: write "
        f"`signature: {sorted(signatures)[0]}`"
    )


class _Filling:
    """Fills in one `model.yaml` from its `signature`."""

    def __init__(self, source: Source, signature: Signature) -> None:
        self._source = source
        self._values = source.values
        self._inputs = {tensor.name: tensor for tensor in signature.inputs}
        self._outputs = {tensor.name: tensor for tensor in signature.outputs}
        firsts = {tensor.shape[0] for tensor in signature.inputs if tensor.shape}
        self._rows = 1 if firsts == {1} else -1

    def fill(self) -> None:
        for tensor in self._inputs.values():
            self._check_input(tensor)
        self._values.setdefault("inputs", [{"name": name} for name in self._inputs])
        self._values.setdefault("outputs", [{"name": name} for name in self._row_outputs()])
        for kind, tensors in (("inputs", self._inputs), ("outputs", self._outputs)):
            entries = self._values[kind]
            for place, entry in enumerate(entries if isinstance(entries, list) else ()):
                if isinstance(entry, dict):
                    self._fill_entry((kind, place), entry, tensors)
        self._check_all_inputs()

    def _check_input(self, tensor: SignatureTensor) -> None:
        """Check that the rows of a batch are the first axis of `tensor`. Raises ConfigError."""
        if not tensor.dtype:
            why = "which is sparse, ragged, or of a datatype that is not served"
        elif tensor.shape == ():
            why = "which has no axis for the rows: fix its value in the function that you save"
        elif tensor.shape is not None and tensor.shape[0] != self._rows:
            why = (
                "whose first axis is fixed: save the function with `None` as the first axis of "
                "each input"
            )
        else:
            return
        raise ConfigError(
            f"{self._source.origin(())}: inputs: expected inputs whose first axis counts the rows "
            f"of a batch; got {tensor.name!r}, {_described(tensor)}, {why}"
        )

    def _row_outputs(self) -> list[str]:
        """Return the outputs that have rows. Raises ConfigError without any."""
        found = [
            tensor.name
            for tensor in self._outputs.values()
            if tensor.dtype and (tensor.shape is None or tensor.shape[:1] == (self._rows,))
        ]
        if found:
            return found
        listed = ", ".join(f"{each.name!r} {_described(each)}" for each in self._outputs.values())
        raise ConfigError(
            f"{self._source.origin(())}: outputs: expected outputs whose first axis counts the "
            f"rows of a batch; the signature has {listed or 'none'}"
        )

    def _fill_entry(
        self, key: tuple[str, int], entry: dict[str, Any], tensors: dict[str, SignatureTensor]
    ) -> None:
        """Complete an `entry` of `model.yaml`, and hold it against the signature."""
        name, place = entry.get("name"), self._source.origin(key)
        tensor = tensors.get(str(name))
        if tensor is None:
            raise ConfigError(
                f"{place}: {key[0]}: expected names of the signature, "
                f"{brief_names(list(tensors))}; got {name!r}"
            )
        dtype = str(entry.setdefault("dtype", tensor.dtype))
        if key[0] == "inputs" and dtype not in _names_of(tensor.dtype):
            raise ConfigError(
                f"{place}: dtype: expected the one of the signature, {tensor.dtype}; got {dtype}"
            )
        if "shape" not in entry and tensor.shape is not None:
            entry["shape"] = list(tensor.shape[1:])
        if "shape" not in entry:
            raise ConfigError(
                f"{place}: {key[0]}: expected the shape of a row of {name!r}, which the file does "
                f"not say; got none: list all {key[0]}, with a `shape`, in model.yaml"
            )

    def _check_all_inputs(self) -> None:
        """Check that requests bring every input. Raises ConfigError."""
        entries = self._values["inputs"]
        listed = entries if isinstance(entries, list) else []
        given = {
            str(entry.get("name")): entry.get("optional", False) and entry.get("default") is None
            for entry in listed
            if isinstance(entry, dict)
        }
        if missing := [name for name in self._inputs if given.get(name, True)]:
            raise ConfigError(
                f"{self._source.origin(('inputs',))}: inputs: expected every input of the "
                f"signature, and a `default` for each that is optional; got none for "
                f"{brief_names(missing)}"
            )


def _names_of(dtype: str) -> tuple[str, str]:
    """Return the names by which `model.yaml` may call a datatype."""
    return dtype, DATATYPES[dtype].alias


def _described(tensor: SignatureTensor) -> str:
    """Return datatype and shape as text, such as `FP32[-1,4]`."""
    if tensor.shape is None:
        return f"{tensor.dtype or 'no tensor'} of a shape that the file does not say"
    return f"{tensor.dtype or 'no tensor'}{shape_text(tensor.shape)}"
