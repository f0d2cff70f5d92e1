"""Large MessagePack documents, read piece by piece.

As in large JSON (`json_text`), every list of more than a kilobyte whose parents are maps alone
stays bytes (`LongPackedList`). The unpacker finds where such a list ends, without making an object,
and later unpacks as many elements at a time as lie in one piece of the body. Runs of numbers of one
type are read by numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import msgpack
import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.long_lists import PIECE_BYTES, LongList, UnreadLists
from batcher.errors import ClientError, DecodingError

LARGE_BYTES = 1 << 18
"""Bytes of a document from which on it is read piece by piece: below, its objects are small."""

MAX_MEMBERS = 1 << 14
"""Most members of all maps around the lists: as many inputs has no model."""

_LONG_BYTES = 1 << 10
"""Bytes of a list from which on it stays bytes."""

_MIN_RUN = 64
"""Numbers of one type from which on numpy is quicker than the unpacker."""

_TYPES = {
    0xCA: ">f4",
    0xCB: ">f8",
    0xCC: ">u1",
    0xCD: ">u2",
    0xCE: ">u4",
    0xCF: ">u8",
    0xD0: ">i1",
    0xD1: ">i2",
    0xD2: ">i4",
    0xD3: ">i8",
}
"""First byte of a number to the dtype of the bytes behind it."""

_LONG_TEXTS = (0xC6, 0xDB)
"""First bytes of bytes and texts whose length is written in four bytes."""

Hook = Callable[[dict[Any, Any]], Any]
Result = TypeVar("Result")


def with_msgpack(body: Buffer, hook: Hook, use: Callable[[Any], Result]) -> Result:
    """Return what `use` makes of the MessagePack document in `body`.

    Long lists of a large document are instances of `LongList`. Those that `use` leaves are read
    after it. `hook` is called with each map, and returns what takes its place.

    Raises:
        DecodingError: the body is not MessagePack, or has more than MAX_MEMBERS members.
    """
    if len(body) < LARGE_BYTES:
        return use(_checked(lambda: msgpack.unpackb(body, object_hook=hook, strict_map_key=True)))
    document = _Document(memoryview(body), hook)
    value, end = document.value(0)
    if end < len(body):
        raise _no_msgpack(f"{len(body) - end} bytes behind the end")
    result = use(value)
    document.unread.read_all()
    return result


def _checked(unpack: Callable[[], Result]) -> Result:
    try:
        return unpack()
    except ClientError:
        raise
    # the unpacker raises ValueError, TypeError, its own errors, and any error of the hook
    except Exception as err:
        raise _no_msgpack(str(err) or type(err).__name__) from err


def _no_msgpack(reason: str) -> DecodingError:
    return DecodingError(f"body: expected MessagePack; got something else: {reason}")


class _Document:
    """A large document.

    Attributes:
        body: bytes of the document.
        unread: lists that nobody has read yet.
    """

    def __init__(self, body: memoryview, hook: Hook) -> None:
        """Read nothing yet; `hook` is called with each map."""
        self.body = body
        self.unread = UnreadLists()
        self._hook = hook
        self._members = 0

    def value(self, start: int) -> tuple[Any, int]:
        """Return the value at `start`, its long lists as they are, and the place behind it."""
        first = self.body[start] if start < len(self.body) else 0
        if first & 0xF0 == 0x80 or first in (0xDE, 0xDF):
            return self._map(start)
        end = self.end(start)
        if end - start >= _LONG_BYTES and is_list(first):
            found = LongPackedList(self, start, end)
            self.unread.add(found)
            return found, end
        return self.unpacked(self.body[start:end]), end

    def end(self, start: int) -> int:
        """Return the place behind the value at `start`. Raises DecodingError: it has no end."""
        if start < len(self.body) and self.body[start] in _LONG_TEXTS:
            # of such a value the unpacker would take a copy
            return min(sum(header(self.body, start)), len(self.body))
        size = _LONG_BYTES
        while True:
            unpacker = self.unpacker(self.body[start : start + size])
            try:
                unpacker.skip()
            except msgpack.OutOfData as err:
                if start + size >= len(self.body):
                    raise _no_msgpack("a value that is cut off") from err
                size *= 8
            except Exception as err:
                raise _no_msgpack(str(err) or type(err).__name__) from err
            else:
                return start + int(unpacker.tell())

    def unpacked(self, data: Buffer) -> Any:
        """Return the one value in `data`, built whole."""
        return _checked(lambda: msgpack.unpackb(data, object_hook=self._hook, strict_map_key=True))

    def unpacker(self, *data: Buffer) -> Any:
        """Return an unpacker that has got `data`."""
        unpacker = msgpack.Unpacker(
            object_hook=self._hook, strict_map_key=True, max_buffer_size=len(self.body) + 16
        )
        for part in data:
            unpacker.feed(part)
        return unpacker

    def _map(self, start: int) -> tuple[Any, int]:
        count, place = header(self.body, start)
        self._members += count
        if self._members > MAX_MEMBERS:
            raise DecodingError(f"body: expected at most {MAX_MEMBERS} members of maps; got more")
        found = {}
        for _ in range(count):
            end = self.end(place)
            key = self.unpacked(self.body[place:end])
            if not isinstance(key, str | bytes):
                raise _no_msgpack(f"a key of type {type(key).__name__}")
            found[key], place = self.value(end)
        return _checked(lambda: self._hook(found)), place


class LongPackedList(LongList):
    """A list in a large document."""

    def __init__(self, document: _Document, start: int, stop: int) -> None:
        """Read from the header at `start` up to `stop`."""
        self._document = document
        self._start = start
        self._stop = stop

    def pieces(self) -> Iterator[list[Any] | LongList]:
        """Yield the elements, see `LongList.pieces`."""
        document = self._document
        left, place = header(document.body, self._start)
        while left:
            window = document.body[place : min(place + PIECE_BYTES, self._stop)]
            elements, size = _run(window, left)
            if not elements:
                elements, size = _whole(document, window, left)
            if elements:
                left -= len(elements)
                place += size
                yield elements
            else:
                left -= 1
                piece, place = self._long_element(place)
                yield piece
        document.unread.remove(self)

    def _long_element(self, start: int) -> tuple[list[Any] | LongList, int]:
        if is_list(self._document.body[start]):
            end = self._document.end(start)
            return LongPackedList(self._document, start, end), end
        value, end = self._document.value(start)
        return [value], end


def _run(window: memoryview, most: int) -> tuple[list[Any], int]:
    """Return the numbers of one type at the beginning, and their bytes; none if there are few."""
    first = window[0]
    characters = np.frombuffer(window, "u1")
    if first < 0x80 or first >= 0xE0:
        run = _length((characters < 0x80) | (characters >= 0xE0), most)
        return (characters[:run].view("i1").tolist(), run) if run >= _MIN_RUN else ([], 0)
    if first not in _TYPES:
        return [], 0
    dtype = np.dtype([("type", "u1"), ("value", _TYPES[first])])
    numbers = np.frombuffer(window, dtype, len(window) // dtype.itemsize)
    run = _length(numbers["type"] == first, most)
    values = numbers["value"][:run].tolist() if run >= _MIN_RUN else []
    return values, len(values) * dtype.itemsize


def _length(fits: Any, most: int) -> int:
    """Return how many of the first values are true, at most `most`."""
    fits = fits[:most]
    return len(fits) if fits.all() else int(np.argmin(fits))


def _whole(document: _Document, window: memoryview, most: int) -> tuple[list[Any], int]:
    """Return the elements that lie in `window` from end to end, and their bytes."""
    elements: list[Any] = _checked(lambda: list(islice(document.unpacker(window), most)))
    # the unpacker has begun the next element, too: the bytes of the whole ones are counted by
    # skipping a list of so many
    counter = document.unpacker(b"\xdd" + len(elements).to_bytes(4, "big"), window)
    counter.skip()
    return elements, int(counter.tell()) - 5


def is_list(first: int) -> bool:
    """Return whether a value that begins with the byte `first` is a list."""
    return first & 0xF0 == 0x90 or first in (0xDC, 0xDD)


def header(body: memoryview, start: int) -> tuple[int, int]:
    """Return the length of the list or map at `start`, and the place of its first element."""
    first = body[start]
    if first & 0xE0 == 0x80:
        return first & 0x0F, start + 1
    size = 2 if first in (0xDC, 0xDE) else 4  # also of _LONG_TEXTS
    return int.from_bytes(body[start + 1 : start + 1 + size], "big"), start + 1 + size
