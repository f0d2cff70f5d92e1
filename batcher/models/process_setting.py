"""One setting of the whole process that a model may change while it loads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """Something that belongs to the process, with the functions that read and write it.

    Attributes:
        name: what the log calls the setting; empty for a setting whose change is not told.
        read: returns the value now. Any thread.
        write: makes a value from `read` the value again. Any thread.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def of_module(module: str, attribute: str, default: Any) -> Setting:
    """Return the setting that an attribute of a module is; `default` without the module."""

    def read() -> Any:
        return getattr(sys.modules.get(module), attribute, default)

    def write(value: Any) -> None:
        setattr(sys.modules[module], attribute, value)

    return Setting(f"{module}.{attribute}", read, write)
