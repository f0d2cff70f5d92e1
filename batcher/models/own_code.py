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
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import NamedTuple

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


def own_place(error: BaseException) -> Place | None:
    """Return the line of the author's code that `error` comes from; None if there is none.

    If `error` was raised because of another exception, and passed through no code of the author,
    the place is that of the other exception. Any thread.
    """
    for link in _chain(error):
        places = [Place(frame.f_code.co_filename, line) for frame, line in walk_tb(link)]
        foreign = [place for place in places if _is_foreign(place.file)]
        own = [place for place in foreign if _INSTALLED.isdisjoint(Path(place.file).parts)]
        if own:
            return own[-1]
        if foreign:
            return foreign[0]
    return None


def with_place(text: str, error: BaseException) -> str:
    """Return `text`, which tells of `error`, with the place of `error` behind it. Any thread."""
    place = own_place(error)
    # Python's own text of a syntax error names file and line already.
    return text if place is None or isinstance(error, SyntaxError) else f"{text} ({place})"


def _chain(error: BaseException) -> Iterator[TracebackType | None]:
    """Yield the traceback of `error` and of all that led to it. Any thread."""
    link: BaseException | None = error
    seen = set()  # a chain of causes may be a circle
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link.__traceback__
        link = link.__cause__ or link.__context__


def _is_foreign(file: str) -> bool:
    """Return whether `file` is a file, and neither the server's nor Python's. Any thread."""
    is_python = file.startswith(_PYTHON) and _INSTALLED.isdisjoint(Path(file).parts)
    return not (file.startswith(("<", _SERVER)) or is_python)
