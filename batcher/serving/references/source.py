"""Where files lie that clients name in place of inputs, as the fetcher sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from batcher.core.error_text import brief
from batcher.errors import InputSourceFailed, TooLarge


class Fetched(NamedTuple):
    """A file that was fetched.

    Attributes:
        content: its bytes.
        tag: changes with the content; empty where the source has none.
    """

    content: bytes
    tag: str


class GivenUp(Exception):
    """Nobody waits for the fetch any more; no client sees it."""


class Fetch:
    """What one fetch may take, and whether somebody waits for it.

    Attributes:
        max_bytes: most bytes of the file.
        is_given_up: whether nobody waits any more. Set on the loop's thread, read on the fetch's.
    """

    def __init__(self, max_bytes: int, deadline: float, seconds: Callable[[], float]) -> None:
        """Begin a fetch that is worthless after `deadline`, in seconds of the clock `seconds`."""
        self.max_bytes = max_bytes
        self.is_given_up = False
        self._deadline = deadline
        self._seconds = seconds

    def left(self) -> float:
        """Return the seconds that are left; raises GivenUp if nobody waits. Any thread."""
        left = self._deadline - self._seconds()
        if self.is_given_up or left <= 0:
            raise GivenUp
        return left

    def check_size(self, nbytes: int, address: str) -> None:
        """Raise TooLarge if a file of `nbytes` bytes, or one that has as many so far, is too large.

        Any thread.
        """
        if nbytes > self.max_bytes:
            raise TooLarge(
                f"{brief(address, 200)}: expected a file of at most {self.max_bytes} bytes; got "
                "a larger one"
            )


def failed(address: str, expected: str, why: object = "") -> InputSourceFailed:
    """Return the error for the file at `address`.

    Clients read what was `expected`, and the log also `why`, which may name what lies behind.
    """
    public = f"{brief(address, 200)}: expected {expected}"
    error = InputSourceFailed(f"{public}: {why}" if why else public)
    error.public = public
    return error


class Source(Protocol):
    """Reads files of one bucket, or of web servers. A thread of the pool for inputs."""

    def read(self, name: str, tag: str, fetch: Fetch) -> Fetched | None:
        """Return the file `name`; None if its tag is `tag` still, and not empty.

        Raises:
            InputMissing: there is no such file.
            InputSourceFailed: the source does not answer, or answers no file.
            TooLarge: the file is larger than `fetch` allows.
            GivenUp: nobody waits any more.
        """
