"""What an exception says.

Its class is a model's own, may do anything when it is asked, and may say any amount.

Whatever is written here comes back as a plain `str`, whatever the class raises or returns, and no
longer than it may be: the beginning and the end are kept, and how much is left out stands between
them. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from traceback import format_exception, format_exception_only

MOST_MESSAGE = 4000
"""Characters of a message: what a status of gRPC has room for (see `rpc/calls.py`), and more than
anybody reads.
"""

MOST_STACK = 16 << 10
"""Characters of a stack: some hundred frames."""

_MARK = 60
"""Characters of the words for what is left out."""

_UNWRITTEN = "an exception that cannot be written"


def message(error: object) -> str:
    """Return what `error`, or a note of one, says."""
    return cut(written(lambda: str(error), "<exception str() failed>"), MOST_MESSAGE)


def summary(error: BaseException, most: int = MOST_MESSAGE) -> str:
    """Return class, message and notes of `error` in up to `most` characters, as they end a traceback."""
    return cut(written(lambda: "".join(format_exception_only(error)).strip(), _UNWRITTEN), most)


def stack(error: BaseException) -> str:
    """Return the traceback of `error` with its causes."""
    return cut(written(lambda: "".join(format_exception(error)), f"{_UNWRITTEN}\n"), MOST_STACK)


def written(write: Callable[[], object], otherwise: str) -> str:
    """Return the text that `write` gives, `otherwise` if it fails or gives none."""
    try:
        return str.__str__(write())  # of a subclass a plain one; of anything else a TypeError
    except BaseException:  # also SystemExit: it ends no thread of the server's
        return otherwise


def cut(text: str, most: int) -> str:
    """Return `text` in at most `most` characters."""
    if len(text) <= most:
        return text
    end = most // 4
    start = most - end - _MARK
    return f"{text[:start]} … ({len(text) - start - end} characters left out) … {text[-end:]}"


def without_stacks(error: BaseException) -> BaseException:
    """Return `error`, rid of the stacks that it came through.

    They would keep the whole batch alive.
    """
    link: BaseException | None = error
    seen = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
