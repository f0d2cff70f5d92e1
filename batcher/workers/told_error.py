"""An exception on its way between processes: its class may be known on one side alone, so it travels as words.

Exceptions of `errors.py` are made again as what they were. Any other is made again as an exception of the same name, whose
cause holds the text of its stack: it reads like the original wherever it is printed.
"""

from __future__ import annotations

from traceback import format_exception
from typing import Any, NamedTuple

from batcher import errors
from batcher.errors import BatcherError


class ToldError(NamedTuple):
    """An exception in words.

    Attributes:
        known: its class, or the nearest of its bases, in `errors.py`; None if it has none there.
        module: the module of its class.
        name: the name of its class.
        message: what it says.
        attributes: what a class of `errors.py` keeps besides.
        notes: what was added to it.
        stack: the text of its stack.
    """

    known: type[BatcherError] | None
    module: str
    name: str
    message: str
    attributes: dict[str, Any]
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
    known = next((base for base in kind.__mro__ if base.__module__ == errors.__name__), None)
    try:
        message, notes = str(error), list(map(str, getattr(error, "__notes__", ())))
    except Exception:  # a model's own class, which may do anything
        message, notes = "<exception str() failed>", []
    kept = vars(error) if known is not None else {}
    attributes = {name: value for name, value in kept.items() if isinstance(value, int | str | tuple)}
    return ToldError(known, kind.__module__, kind.__qualname__, message, attributes, notes, "".join(format_exception(error)))


def remake(told: ToldError) -> BaseException:
    """Return an exception that reads like the one that was told of. Any thread."""
    kind: type[Exception] = told.known or type(told.name, (Exception,), {"__module__": told.module})
    error = kind.__new__(kind, told.message)
    vars(error).update(told.attributes)
    for note in told.notes:
        error.add_note(note)
    error.__cause__ = RemoteStack(told.stack)
    return error
