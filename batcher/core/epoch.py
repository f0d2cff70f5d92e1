"""How long a look-up stays true.

A front looks a model up once for all requests that are alike, and keeps what it found. The look-up
is true while no model comes, goes or changes its state. That time is an epoch. A look-up keeps the
epoch in which it was made and reads one attribute of it for each request, whatever has become of
the server meanwhile.
"""

from __future__ import annotations

from typing import final


@final
class Epoch:
    """A time in which no model comes, goes or changes its state.

    Attributes:
        over: whether the epoch has ended; it never begins again.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        """Begin."""
        self.over = False
