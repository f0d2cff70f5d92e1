"""What an exception says, and what a client sent, as text that is safe to log and to send.

The class of an exception may be a model's own. Its `__str__` may raise, may end the process, may
return a subclass of `str` that does anything, or a gigabyte of text. So every function here returns
a plain `str` of bounded length, whatever the class does. Of a text that is too long the beginning
and the end stay, and between them stands how much was left out. Any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sized
from itertools import islice
from traceback import format_exception, format_exception_only

MAX_MESSAGE_CHARS = 4000
"""Characters of a message: as many as a gRPC status has room for (see `frontends/grpc/calls.py`),
and more than anybody reads.
"""

MAX_STACK_CHARS = 16 << 10
"""Characters of a traceback: some hundred frames."""

_MARK_CHARS = 60
"""Characters that the mark between beginning and end may need."""

_BRIEF_ITEMS = 16
"""Most elements of a list that are shown: more do not fit into a line anyhow."""

_BRIEF_BITS = 256
"""Most bits of a whole number that is shown: Python takes quadratic time to write a longer one."""

_FOLDER = re.compile(r"\bbatcher\.models\.version_code\.v\d+_\w+\.")
"""What stands before the name of a file beside a model: the path of its folder, which is no matter
of clients, and how many loads there were (`models/version_code/names.py`).
"""

_UNPRINTABLE = "an exception that cannot be written"


def message(error: object) -> str:
    """Return the message of `error`, which may also be a note of an exception."""
    return cut(text_or(lambda: str(error), "<exception str() failed>"), MAX_MESSAGE_CHARS)


def summary(error: BaseException, max_chars: int = MAX_MESSAGE_CHARS) -> str:
    """Return class, message and notes of `error`, as they end a traceback.

    A class of `model.py` beside `model.yaml` is called `model.Name`.
    """
    lines = text_or(lambda: "".join(format_exception_only(error)).strip(), _UNPRINTABLE)
    return _FOLDER.sub("", cut(lines, max_chars))


def stack(error: BaseException) -> str:
    """Return the traceback of `error` with its causes."""
    lines = text_or(lambda: "".join(format_exception(error)), f"{_UNPRINTABLE}\n")
    return _FOLDER.sub("", cut(lines, MAX_STACK_CHARS))


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


def brief(value: object, max_chars: int = 80) -> str:
    """Return `repr(value)` in at most `max_chars` characters, for a value that a client sent.

    The time does not depend on the value's size, as it would if the whole text was made and cut.
    """
    text = _brief(value, max_chars, 0)
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def brief_names(names: Iterable[object]) -> str:
    """Return the first of `names`, which a client sent, as text with commas; empty for none."""
    shown = [brief(name) for name in islice(names, _BRIEF_ITEMS + 1)]
    return ", ".join(shown[:_BRIEF_ITEMS] + ["…"] * (len(shown) > _BRIEF_ITEMS))


def _brief(value: object, max_chars: int, depth: int) -> str:
    if isinstance(value, str | bytes | bytearray):
        return repr(value[:max_chars])
    if isinstance(value, int) and value.bit_length() > _BRIEF_BITS:
        return f"a whole number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if not isinstance(value, list | tuple | dict):
        return f"a value of type {type(value).__name__}"
    if depth == 2 and value:
        return "…"
    if isinstance(value, dict):
        found = [
            f"{_brief(key, max_chars, depth + 1)}: {_brief(inner, max_chars, depth + 1)}"
            for key, inner in islice(value.items(), _BRIEF_ITEMS)
        ]
        return f"{{{', '.join(_shortened(found, value))}}}"
    found = [_brief(inner, max_chars, depth + 1) for inner in islice(value, _BRIEF_ITEMS)]
    text = ", ".join(_shortened(found, value))
    return f"[{text}]" if isinstance(value, list) else f"({text})"


def _shortened(found: list[str], value: Sized) -> list[str]:
    return [*found, "…"] if len(value) > len(found) else found


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
