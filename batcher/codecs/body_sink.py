"""A body that is not held in memory: a route takes it while it arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class BodySink(ABC):
    """Takes one body in pieces, and is then the body of its call. Reactor thread.

    Attributes:
        limit: most bytes of the body.
        room: called whenever `is_behind` has become false.
    """

    def __init__(self, limit: int) -> None:
        """Take at most `limit` bytes."""
        self.limit = limit
        self.room: Callable[[], object] = _nothing

    @property
    @abstractmethod
    def held(self) -> int:
        """Bytes of memory that the body takes."""

    @property
    @abstractmethod
    def is_behind(self) -> bool:
        """Whether so much is held that no more should be read from the client for now."""

    @abstractmethod
    def feed(self, piece: bytes) -> None:
        """Take a piece of the body. Raises any BatcherError: the rest is not wanted."""

    @abstractmethod
    def finish(self) -> BodySink:
        """Note that the body is whole; return the body, which is this object."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what has come: the rest will not."""

    def __len__(self) -> int:
        """Bytes of memory that the body takes."""
        return self.held


def _nothing() -> None:
    pass


OpenSink = Callable[[Mapping[bytes, bytes]], BodySink]
"""Returns what takes the body of a request with these headers. Raises any BatcherError."""

FindSink = Callable[[str, dict[bytes, bytes]], BodySink | None]
"""Returns what takes the body of a POST on a path with these headers; None if it is kept."""
