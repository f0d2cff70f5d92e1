"""An exception on its way between processes.

Its class may be known on one side alone, so it travels as words.

Exceptions of `errors.py` are made again as what they were. Any other is made again as an exception
of the same name, whose cause holds the text of its stack: it reads like the original wherever it is
printed.

A model's own class may do anything when it is asked, and what it keeps may be of classes that only
the child knows. If one exception could not cross, the whole batch, and the child with it, would be
lost: so nothing but plain texts, bytes and classes of `errors.py` crosses, and neither `tell` nor
`remake` ever raises. What an exception keeps goes as `marshal` writes it, which refuses all that is
not, at any depth, of a built-in type itself; pickle would look for classes at the other end.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from batcher import errors
from batcher.core.error_text import cut, message, stack, written
from batcher.errors import BatcherError

_KNOWN = tuple(
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BatcherError)
)

_MOST_KEPT = 16
"""Attributes, and notes, that cross; no class of `errors.py` has more than two."""

_MOST_BYTES = 1 << 12
"""Bytes of an attribute that crosses."""

_MOST_NAME = 400
"""Characters of the name of a class, or of its module."""


class ToldError(NamedTuple):
    """An exception in words.

    Attributes:
        known: its class, or the nearest of its bases, in `errors.py`; None if it has none there.
        module: the module of its class.
        name: the name of its class.
        message: what it says.
        attributes: what a class of `errors.py` keeps besides, each as `marshal` writes it.
        notes: what was added to it.
        stack: the text of its stack.
    """

    known: type[BatcherError] | None
    module: str
    name: str
    message: str
    attributes: dict[str, bytes]
    notes: list[str]
    stack: str


class RemoteStack(Exception):
    """Where an exception was raised, in another process."""

    def __str__(self) -> str:
        """Return the text of the stack, on lines of its own."""
        return f"\n{self.args[0]}"


def tell(error: BaseException) -> ToldError:
    """Return `error` in words. Any thread."""
    kind = type(error)
    known = next((base for base in type.mro(kind) if any(base is one for one in _KNOWN)), None)
    return ToldError(
        known,
        cut(written(lambda: kind.__module__, "<unknown>"), _MOST_NAME),
        cut(written(lambda: kind.__qualname__, "Exception"), _MOST_NAME),
        message(error),
        dict(_attributes(error)) if known is not None else {},
        _notes(error),
        stack(error),
    )


def remake(told: ToldError) -> BaseException:
    """Return an exception that reads like the one that was told of. Any thread."""
    kind: type[Exception] = told.known or _named(told.module, told.name)
    error = kind.__new__(kind, told.message)
    vars(error).update({name: marshal.loads(value) for name, value in told.attributes.items()})
    for note in told.notes:
        error.add_note(note)
    error.__cause__ = RemoteStack(told.stack)
    return error


def _attributes(error: BaseException) -> Iterator[tuple[str, bytes]]:
    kept: dict[Any, Any] = {}
    with suppress(BaseException):  # a class may have a `__dict__` of its own making
        kept = dict(vars(error))
    for name, value in islice(kept.items(), _MOST_KEPT):
        if type(name) is str and name != "__notes__" and (data := _marshalled(value)):
            yield name, data


def _marshalled(value: Any) -> bytes:
    """Return `value` as `marshal` writes it; nothing if it does not, or if that is long."""
    with suppress(Exception):
        data = marshal.dumps(value)
        return data if len(data) <= _MOST_BYTES else b""
    return b""


def _notes(error: BaseException) -> list[str]:
    with suppress(BaseException):  # there are none, or what is called so is something else
        return [message(note) for note in islice(error.__notes__, _MOST_KEPT)]
    return []


def _named(module: str, name: str) -> type[Exception]:
    """Return a class called `name`, as far as a class may be called so."""
    possible = name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return type(possible, (Exception,), {"__module__": module})
