"""Where in the code of a model's author an exception was raised.

An exception often passes through many files: the server's own, those of frameworks, those of
Python. The author looks for one line, the last one in a file of the author's own:

    batcher/models/loading.py      the server's
    models/m/1/model.py:12         the author's: this line is shown
    site-packages/torch/…          a framework's, which the author's line called

A model may be a class of an installed package, so that no file is the author's own. Then the first
line outside of the server and of Python is shown: the server called that file.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb
from typing import NamedTuple

from batcher.errors import OutOfMemory

_SERVER = str(Path(__file__).parents[1])
_PYTHON = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_INSTALLED = {"site-packages", "dist-packages"}


class Place(NamedTuple):
    """A line of source.

    Attributes:
        file: path of the file.
        line: number of the line, from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        """Return the place as editors and terminals read places. Any thread."""
        return f"{self.file}:{self.line}"


class RemoteError(Exception):
    """The cause of an exception that was raised in another process.

    Attributes:
        place: the line of the author's code that the exception came from; None if there is none.
    """

    place: Place | None = None


def own_place(error: BaseException) -> Place | None:
    """Return the line of the author's code that `error` comes from; None if there is none.

    If `error` was raised because of another exception, and passed through no code of the author,
    the place is that of the other exception. Any thread.
    """
    with suppress(BaseException):  # attributes of a model's own class may do anything
        for link in causes_of(error):
            if isinstance(link, RemoteError):
                return link.place
            # The stack of such an error was let go of, with the tensors that its frames held.
            if isinstance(link, OutOfMemory) and link.place:
                file, _, line = link.place.rpartition(":")
                return Place(file, int(line))
            places = [
                Place(frame.f_code.co_filename, line) for frame, line in walk_tb(link.__traceback__)
            ]
            foreign = [place for place in places if _is_foreign(place.file)]
            own = [place for place in foreign if not _is_installed(place.file)]
            if own:
                return own[-1]
            if foreign:
                return foreign[0]
    return None


def first_cause(error: BaseException) -> BaseException:
    """Return what `error` was raised from, through all causes; `error` without one. Any thread."""
    seen = {id(error)}  # causes may be a circle
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return error


def with_place(text: str, error: BaseException) -> str:
    """Return `text`, which tells of `error`, with the place of `error` behind it. Any thread."""
    place = own_place(error)
    # Python's own text of a syntax error names file and line already.
    return text if place is None or isinstance(error, SyntaxError) else f"{text} ({place})"


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and all that led to it. Any thread."""
    link: BaseException | None = error
    seen = set()  # a chain of causes may be a circle
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


@lru_cache(maxsize=1024)
def _is_foreign(file: str) -> bool:
    """Return whether `file` is a file, and neither the server's nor Python's. Any thread."""
    is_python = file.startswith(_PYTHON) and not _is_installed(file)
    return not (file.startswith(("<", _SERVER)) or is_python)


@lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    """Return whether `file` belongs to an installed package. Any thread."""
    return not _INSTALLED.isdisjoint(Path(file).parts)
