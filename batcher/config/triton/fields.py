"""What the fields of `config.pbtxt` become, and what is said of those that become nothing.

A field is mapped, or has no meaning here (a note names the field and its line), or is refused: what
it asks for would change answers, and is not served. All refused fields are named at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from batcher.config.triton.text_format import Field, Message, Word
from batcher.errors import ConfigError

Handler = Callable[["Reading", Field], None]
"""Takes one field into what is being read."""


MAX_NUMBER = (1 << 63) - 1
"""The largest number that a field of Triton's holds."""

MAX_FAULTS = 100
"""Refused fields that are named: a person mends these first, and whoever writes more wants none."""


class Reading:
    """What was read of one file so far.

    Attributes:
        file: name of the file, for messages.
        folder: the folder it stands in, that of the model.
        values: what `model.yaml` would say.
        settings: settings of the model, as below `models.NAME`; a key that begins with `_` is kept
            for a later field of the file alone.
        origins: the place of each of `values` and of `settings`.
        notes: of each field without a meaning here why it has none.
        faults: of each refused field why it is refused.
    """

    def __init__(self, file: str, folder: Path) -> None:
        """Begin with nothing."""
        self.file = file
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.origins: dict[tuple[str | int, ...], str] = {(): file}
        self.notes: list[str] = []
        self.faults: list[str] = []

    def place(self, line: int) -> str:
        """Return the place of `line`, for messages."""
        return f"{self.file}:{line}"

    def refuse(self, field: Field, why: str) -> None:
        """Note that `field` is not served. Raises ConfigError: there are too many such fields."""
        self.fault(field.line, f"{field.name:.200}: {why}")

    def fault(self, line: int, why: str) -> None:
        """Note what is wrong in a line. Raises ConfigError: too much is wrong."""
        self.faults.append(f"{self.place(line)}: {why}")
        if len(self.faults) == MAX_FAULTS:
            self.check()

    def check(self) -> None:
        """Raise ConfigError with all faults, if there are any."""
        if self.faults:
            by_line = sorted(self.faults, key=lambda fault: int(fault.split(":", 2)[1]))
            raise ConfigError("\n".join(by_line))

    def note(self, field: Field, why: str) -> None:
        """Note that `field` has no meaning here."""
        self.notes.append(f"{self.place(field.line)}: {field.name} has no meaning here: {why}")

    def set(self, key: str, value: Any, line: int) -> None:
        """Set a setting of the model."""
        self.settings[key] = value
        self.origins[("settings", key)] = self.place(line)

    def each(self, field: Field, handlers: Mapping[str, Handler]) -> None:
        """Hand each field of the message `field` to its handler; refuse unknown ones."""
        if not isinstance(field.value, Message):
            self.refuse(field, f"expected {{ … }}; got {field.value!r}")
            return
        for inner in field.value.fields:
            handler = handlers.get(inner.name)
            if handler is not None:
                handler(self, inner)
                continue
            close = get_close_matches(inner.name, handlers, n=1)
            advice = f"; did you mean {close[0]}?" if close else ""
            self.refuse(inner, f"expected a field of {field.name}{advice}")

    def number(self, field: Field, least: int = 0) -> int | None:
        """Return the whole number of `field`; None, and a fault, if it is none."""
        try:
            value = int(field.value, 0) if isinstance(field.value, Word) else None
        except ValueError:
            value = None
        if value is None or not least <= value <= MAX_NUMBER:
            most = "on" if value is None or value < least else f"to {MAX_NUMBER}"
            self.refuse(field, f"expected a whole number from {least} {most}; got {shown(field)}")
            return None
        return value

    def text(self, field: Field) -> str:
        """Return the text of `field`; an empty one, and a fault, if it is none."""
        if isinstance(field.value, str) and not isinstance(field.value, Word):
            return field.value
        self.refuse(field, f"expected a text in quotes; got {shown(field)}")
        return ""

    def boolean(self, field: Field) -> bool:
        """Return whether `field` is true; a fault if it is neither true nor false."""
        word = str(field.value).lower() if isinstance(field.value, Word) else ""
        if word not in ("true", "false", "1", "0", "t", "f"):
            self.refuse(field, f"expected true or false; got {shown(field)}")
        return word in ("true", "1", "t")


def shown(field: Field) -> str:
    """Return the value of a field for a message."""
    return "{ … }" if isinstance(field.value, Message) else f"{field.value!s:.60}"


def refused(why: str) -> Handler:
    """Return the handler of a field that is not served."""
    return lambda reading, field: reading.refuse(field, why)


def ignored(why: str) -> Handler:
    """Return the handler of a field that has no meaning here."""
    return lambda reading, field: reading.note(field, why)


def refused_if_true(why: str) -> Handler:
    """Return the handler of a field that is not served where it is true."""

    def handle(reading: Reading, field: Field) -> None:
        if reading.boolean(field):
            reading.refuse(field, why)

    return handle


def accepted(reading: Reading, field: Field) -> None:
    """Take a field that is for people alone, such as the name of a group."""
