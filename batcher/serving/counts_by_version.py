"""Counts of one kind for each version of each model, as many as are bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

_Counts = TypeVar("_Counts")


class CountsByVersion(Generic[_Counts]):
    """The counts of each version. Reactor thread."""

    def __init__(self, make: Callable[[], _Counts], most: int) -> None:
        """Start without versions; `make` returns counts at zero, kept for `most` versions."""
        self._make, self._most = make, most
        self._counts: dict[tuple[str, str], _Counts] = {}

    def of(self, model: str, version: str) -> _Counts:
        """Return the counts of a version; forget the first one known where there are too many."""
        found = self._counts.get((model, version))
        if found is None:
            if len(self._counts) >= self._most:
                del self._counts[next(iter(self._counts))]
            found = self._counts[model, version] = self._make()
        return found

    def of_model(self, model: str) -> dict[str, _Counts]:
        """Return the counts of each version of `model`, by its number."""
        return {key[1]: counts for key, counts in self._counts.items() if key[0] == model}
