"""What an exception says, as text that is safe to log and to send.

The class of an exception may be a model's own. Its `__str__` may raise, may end the process, may
return a subclass of `str` that does anything, or a gigabyte of text. So every function here returns
a plain `str` of bounded length, whatever the class does. Of a text that is too long the beginning
and the end stay, and between them stands how much was left out. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from traceback import format_exception, format_exception_only

MAX_MESSAGE_CHARS = 4000
"""Characters of a message: as many as a gRPC status has room for (see `frontends/grpc/calls.py`),
and more than anybody reads.
"""

MAX_STACK_CHARS = 16 << 10
"""Characters of a traceback: some hundred frames."""

_MARK_CHARS = 60
"""Characters that the mark between beginning and end may need."""

_UNPRINTABLE = "an exception that cannot be written"


def message(error: object) -> str:
    """Return the message of `error`, which may also be a note of an exception."""
    return cut(text_or(lambda: str(error), "<exception str() failed>"), MAX_MESSAGE_CHARS)


def summary(error: BaseException, max_chars: int = MAX_MESSAGE_CHARS) -> str:
    """Return class, message and notes of `error`, as they end a traceback."""
    lines = text_or(lambda: "".join(format_exception_only(error)).strip(), _UNPRINTABLE)
    return cut(lines, max_chars)


def stack(error: BaseException) -> str:
    """Return the traceback of `error` with its causes."""
    lines = text_or(lambda: "".join(format_exception(error)), f"{_UNPRINTABLE}\n")
    return cut(lines, MAX_STACK_CHARS)


def text_or(write: Callable[[], object], default: str) -> str:
    """Return the text that `write` returns, or `default` if `write` fails or returns no text."""
    try:
        # Makes a plain text of a subclass's, and raises TypeError for anything else.
        return str.__str__(write())
    except BaseException:  # also SystemExit, which must end no thread of the server
        return default


def cut(text: str, max_chars: int) -> str:
    """Return `text` in at most `max_chars` characters.

    A text that is too long keeps its beginning, the mark, and a quarter of `max_chars` at its end.
    With 4000: 2940 characters of the beginning, up to 60 for the mark, 1000 of the end.
    """
    if len(text) <= max_chars:
        return text
    end = max_chars // 4
    start = max_chars - end - _MARK_CHARS
    return f"{text[:start]} … ({len(text) - start - end} characters left out) … {text[-end:]}"


def without_stacks(error: BaseException) -> BaseException:
    """Return `error` after the tracebacks of `error` and of its causes have been removed.

    A traceback holds the variables of each frame, and with them the whole batch.
    """
    link: BaseException | None = error
    seen = set()  # a chain of causes may be a circle
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
