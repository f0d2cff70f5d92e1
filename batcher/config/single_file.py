"""A model that is one file: what the settings say of it, and whether a path means one.

`models.NAME.path` is a folder, or a file such as `net.onnx`, `net.pt2`, `net.pt` or `model.py`. Of
a file of Python `model.py:Net` names the class, or the function, where the file has several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_WITH_ENTRY = re.compile(r"(.+\.py):(\w+)", re.DOTALL)


class SingleFile(NamedTuple):
    """One file that a model is made of.

    Attributes:
        file: where it is.
        entry: name of the class or function in a file of Python; empty for the only one there.
        inputs: inputs by name, as texts or mappings (`tensor_text.py`); None where the file, or an
            example, says them.
        outputs: the same of the outputs.
        sample: file of a first example, or the example itself; None without one.
    """

    file: Path
    entry: str = ""
    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    sample: Any = None

    @property
    def title(self) -> str:
        """The file's name, and the class in it, for messages."""
        return f"{self.file.name}:{self.entry}" if self.entry else self.file.name


def split_entry(path: Path) -> tuple[Path, str]:
    """Return a path without the class that it ends with, and the class; empty without one."""
    found = None if path.exists() else _WITH_ENTRY.fullmatch(str(path))
    return (Path(found[1]), found[2]) if found else (path, "")


def name_of(file: Path) -> str:
    """Return the name of the model in `file`."""
    return file.name.removesuffix("".join(file.suffixes[-1:])) or file.name
