"""Lines of a job that name files in place of values, as bodies of requests do.

    line -> decoded: which files does it name? -> they are fetched -> decoded with them

Lines that may name files are decoded one by one, several at a time, since each waits for its files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from batcher.codecs.content import Files
from batcher.codecs.formats.references import Unfetched, may_name_files
from batcher.core.decoding_limits import DecodingLimits

AT_ONCE: Final = 8
"""Lines that are decoded at a time: each holds its files, and what they become."""

MAX_DECODED_BYTES: Final = 256 << 20
"""What one line may become, as a queue's bound usually is: many small pictures fit in a line."""

LIMITS: Final = DecodingLimits(max_bytes=MAX_DECODED_BYTES)

Result = TypeVar("Result")
Tasks = Sequence[Callable[[], Any]]


class NamedFiles(NamedTuple):
    """How files are had.

    Attributes:
        fetch: returns files by their addresses; looking one up raises BatcherError.
        run: runs tasks at the same time, at most so many; returns their results.
    """

    fetch: Callable[[Sequence[str]], Mapping[str, bytes]]
    run: Callable[[Tasks, int], list[Any]]

    def decoded(self, decode: Callable[[Files], Result], max_pixels: int) -> Result:
        """Return what `decode` makes of a line, with the files that the line names.

        A picture has at most `max_pixels`. Raises as `decode` and `fetch` do.
        """
        try:
            return decode(Files(None, max_pixels))
        except Unfetched as err:
            addresses = err.addresses
        return decode(Files(self.fetch(addresses), max_pixels))

    def together(self, tasks: Tasks) -> list[Any]:
        """Return the results of `tasks`, each of which decodes a line."""
        return self.run(tasks, AT_ONCE)


def names_files(files: NamedFiles | None, text: bytes) -> bool:
    """Return whether a line may name files, and they are fetched."""
    return files is not None and may_name_files(text)
