"""What `MAR-INF/MANIFEST.json` of an archive says, checked before any of it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from batcher.errors import ModelLoadError

_UNSERVED = {
    "text_classifier": "it needs torchtext, whose development has ended: bring a handler of your "
    "own in the archive",
    "text_handler": "it needs torchtext, whose development has ended: bring a handler of your own "
    "in the archive",
    "dali_image_classifier": "it needs DALI: use image_classifier",
}
_ENVELOPE = (
    "the handler gets each request as it came, so take out of it there what the envelope would"
)
DEFAULTS = ("base_handler", "image_classifier", "image_segmenter", "object_detector")
"""The default handlers that are served."""


class Manifest(NamedTuple):
    """The manifest of an archive.

    Attributes:
        document: all of it, as handlers read it.
        handler: the module of the handler, or the name of a default one.
        function: a function of that module; empty for its class.
        model: the member `model`.
    """

    document: dict[str, Any]
    handler: str
    function: str
    model: dict[str, Any]

    @property
    def is_default(self) -> bool:
        """Whether the handler is one of the default ones."""
        return self.handler in DEFAULTS


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the archive that was extracted into `folder`.

    Raises ModelLoadError: there is none, or it names no handler that can be served, or a file
    outside of the archive. Any thread.
    """
    try:
        document = json.loads((folder / "MAR-INF/MANIFEST.json").read_text(encoding="utf-8"))
        model = document["model"]
        handler = model["handler"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise ModelLoadError(
            "expected an archive with MAR-INF/MANIFEST.json and in it model.handler, as "
            f"torch-model-archiver writes them; got {type(err).__name__}: {err}"
        ) from err
    for key in ("serializedFile", "modelFile", "configFile", "requirementsFile"):
        _check_file(folder, key, model.get(key))
    if envelope := model.get("envelope"):
        raise ModelLoadError(f"envelope: expected none; got {envelope!r:.200}: {_ENVELOPE}")
    if not isinstance(handler, str) or not handler:
        raise ModelLoadError(f"handler: expected the name of a file; got {handler!r:.200}")
    module, _, function = handler.partition(":")
    _check_handler(folder, name := module.removesuffix(".py"))
    return Manifest(document, name, function, model)


def _check_handler(folder: Path, name: str) -> None:
    """Check that the handler `name` is in the archive, or a default one. Raises ModelLoadError."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ModelLoadError(f"handler: expected a file of the archive; got {name!r:.200}")
    if "/" in name or "." in name:
        raise ModelLoadError(
            f"handler: expected a Python file at the top of the archive; got {name!r:.200}"
        )
    if name in _UNSERVED and not (folder / f"{name}.py").is_file():
        raise ModelLoadError(
            f"handler: expected one of {', '.join(DEFAULTS)}, or one in the archive; got {name}: "
            f"{_UNSERVED[name]}"
        )
    if name not in DEFAULTS and not (folder / f"{name}.py").is_file():
        raise ModelLoadError(
            f"handler: expected a file {name}.py in the archive, or one of {', '.join(DEFAULTS)}; "
            "got none"
        )


def _check_file(folder: Path, key: str, name: Any) -> None:
    """Check that a file that the manifest names is in the archive. Raises ModelLoadError."""
    if not name:
        return
    path = folder / str(name)
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_inside = False
    if not is_inside:
        raise ModelLoadError(f"{key}: expected a file of the archive; got {name!r:.200}")
