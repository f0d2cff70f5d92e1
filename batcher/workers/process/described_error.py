"""An exception on its way between processes: described in words, then rebuilt.

The class of an exception may be known on one side alone, so classes do not cross:

| class of the exception | what the other side rebuilds |
|---|---|
| of `errors.py`, or derived from one | an exception of that class of `errors.py` |
| any other | an exception of a class of the same name, derived from `Exception` |

The text of the stack crosses too and becomes the cause of the rebuilt exception, which so reads
like the original wherever it is printed.

A model's own class may do anything when its exception is read, and may keep values of classes that
only the child knows. If one exception could not cross, the whole batch would be lost, and the child
with the batch. So only plain texts, bytes and classes of `errors.py` cross, and neither
`describe_error` nor `rebuild_error` ever raises. Attributes cross as `marshal` writes them: it
refuses every value that is not, at any depth, of a built-in type itself. Pickle would look for
classes at the other end.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from batcher import errors
from batcher.core.error_text import cut, message, stack, text_or
from batcher.errors import BatcherError
from batcher.models.own_code import Place, RemoteError, own_place

_KNOWN_CLASSES = tuple(
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BatcherError)
)

_MAX_ATTRIBUTES = 16
"""Attributes, and notes, that cross; no class of `errors.py` has more than two."""

_MAX_ATTRIBUTE_BYTES = 1 << 12
"""Bytes of an attribute that crosses."""

_MAX_NAME_CHARACTERS = 400
"""Characters of the name of a class, or of its module."""


class DescribedError(NamedTuple):
    """An exception in words.

    Attributes:
        known: its class, or the nearest of its bases, in `errors.py`; None if it has none there.
        module: name of the module of its class.
        name: name of its class.
        message: text of the exception.
        attributes: what a class of `errors.py` keeps besides, each as `marshal` writes it.
        notes: texts of its notes.
        stack: text of its stack.
        place: line of the author's code that it comes from, or None.
    """

    known: type[BatcherError] | None
    module: str
    name: str
    message: str
    attributes: dict[str, bytes]
    notes: list[str]
    stack: str
    place: Place | None


class RemoteStack(RemoteError):
    """Where an exception was raised, in another process."""

    def __init__(self, text: str, place: Place | None) -> None:
        """Hold the `text` of the stack, and the line of the author's code. Any thread."""
        super().__init__(text)
        self.place = place

    def __str__(self) -> str:
        """Return the text of the stack, on lines of its own. Any thread."""
        return f"\n{self.args[0]}"


def describe_error(error: BaseException) -> DescribedError:
    """Return `error` in words; never raises. Any thread."""
    kind = type(error)
    # `type.mro` and `is`: a metaclass of the model's own may answer wrongly, or raise.
    known = next(
        (base for base in type.mro(kind) if any(base is one for one in _KNOWN_CLASSES)), None
    )
    return DescribedError(
        known,
        cut(text_or(lambda: kind.__module__, "<unknown>"), _MAX_NAME_CHARACTERS),
        cut(text_or(lambda: kind.__qualname__, "Exception"), _MAX_NAME_CHARACTERS),
        message(error),
        dict(_attributes(error)) if known is not None else {},
        _notes(error),
        stack(error),
        own_place(error),
    )


def rebuild_error(described: DescribedError) -> BaseException:
    """Return an exception that reads like the one that was described. Any thread."""
    kind: type[Exception] = described.known or _class_named(described.module, described.name)
    # Not `kind(...)`: what the constructor of a class of `errors.py` takes did not cross.
    error = kind.__new__(kind, described.message)
    vars(error).update({name: marshal.loads(data) for name, data in described.attributes.items()})
    for note in described.notes:
        error.add_note(note)
    error.__cause__ = RemoteStack(described.stack, described.place)
    return error


def _attributes(error: BaseException) -> Iterator[tuple[str, bytes]]:
    """Yield name and value of each attribute that can cross. Any thread."""
    attributes: dict[Any, Any] = {}
    with suppress(BaseException):  # a class may have a `__dict__` of its own making
        attributes = dict(vars(error))
    for name, value in islice(attributes.items(), _MAX_ATTRIBUTES):
        if type(name) is str and name != "__notes__" and (data := _marshalled(value)):
            yield name, data


def _marshalled(value: Any) -> bytes:
    """Return what `marshal` writes of `value`; nothing if that is too much. Any thread."""
    with suppress(Exception):
        data = marshal.dumps(value)
        return data if len(data) <= _MAX_ATTRIBUTE_BYTES else b""
    return b""


def _notes(error: BaseException) -> list[str]:
    """Return the texts of the notes of `error`. Any thread."""
    with suppress(BaseException):  # there are none, or what is called so is something else
        return [message(note) for note in islice(error.__notes__, _MAX_ATTRIBUTES)]
    return []


def _class_named(module: str, name: str) -> type[Exception]:
    """Return a class called `name`, as far as a class may be called so. Any thread."""
    possible = name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return type(possible, (Exception,), {"__module__": module})
