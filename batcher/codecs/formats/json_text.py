"""JSON: large documents, read piece by piece, and the one writer.

orjson builds a whole document or nothing, and its objects take up to eight times the bytes of their
text. So a large document is cut at its structure first: every list of more than a kilobyte whose
parents are objects alone is left as text (`LongJsonList`), and orjson reads the rest. Such a list
is cut at the commas between its elements, into pieces that orjson reads one by one.

    {"id": "7", "inputs": {"x": [[0.5, ...], ...]}}    the document
    {"id": "7", "inputs": {"x": [4611...]}}            read first; the number stands for a list
    [[0.5, ...], ...]   [[...], ...]   [[...], ...]    pieces of the list

orjson checks every byte of the document in its piece, so what is not JSON is refused as before. The
cuts are found by numpy and by methods of `bytes`, at the speed of C, after the insides of strings
were blotted out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import getrandbits
from typing import Any, TypeVar

import numpy as np
import orjson

from batcher.codecs.content import Buffer
from batcher.codecs.formats.long_lists import PIECE_BYTES, LongList, UnreadLists
from batcher.codecs.formats.nested_lists import MAX_DEPTH
from batcher.core.spec import Array
from batcher.errors import DecodingError, InvalidInput

_DEPTH = np.zeros(256, "i1")
"""How a character changes the depth of lists and objects."""
_DEPTH[list(b"[{")] = 1
_DEPTH[list(b"]}")] = -1

_LIST_DEPTH = np.where(np.isin(np.arange(256), list(b"[]")), _DEPTH, 0).astype("i1")
"""How a character changes the depth of lists alone."""

LARGE_BYTES = 1 << 18
"""Bytes of a document from which on it is read piece by piece: below, its objects are small."""

MAX_LISTS = 1 << 14
"""Most lists in the objects of a large document: as many inputs has no model."""

_LONG_BYTES = 1 << 10
"""Bytes of a list from which on it is left as text."""

MAX_LEVELS = 2 * MAX_DEPTH
"""Most levels of lists and objects. An input has MAX_DEPTH at most, and the objects around few.

A document is looked through once for each level.
"""

_SMALLEST_WINDOW, _LARGEST_WINDOW = 1 << 9, 1 << 18
"""Bytes of a document that are looked through at once."""

_QUOTE, _COMMA, _BLANKS = ord('"'), ord(","), b" \t\r\n"

_MAX_BEGIN = 1 << 10
"""Bytes of a body that are looked through for single quotes."""

_SINGLE_QUOTES = re.compile(rb"""^\s*[\[{][\[{\s]*'|"\s*:[\[{\s]*'""")
"""A name or a text in single quotes, where the document or the value of a member begins."""

Result = TypeVar("Result")


def with_json(body: Buffer, use: Callable[[Any], Result]) -> Result:
    """Return what `use` makes of the JSON document in `body`.

    Long lists of a large document are instances of `LongList`. Those that `use` leaves are read
    behind it, so that a body that is not JSON is refused in any case.

    Raises:
        DecodingError: the body is not JSON, or has more than MAX_LISTS lists in its objects.
    """
    if len(body) < LARGE_BYTES:
        return use(from_json(body))
    large = _Document(memoryview(body))
    result = use(large.object(0, len(body)))
    large.unread.read_all()
    return result


def to_json(value: Any) -> bytes:
    """Return `value` as compact UTF-8 JSON; numpy arrays become nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(body: Buffer) -> Any:
    """Return the value of a JSON document.

    Raises:
        DecodingError: the body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise _no_json(body, str(err)) from err


def _no_json(body: Buffer, reason: str) -> DecodingError:
    literals = [name for name in (b"NaN", b"Infinity") if name in bytes(body)]
    hint = f"; JSON has no {literals[0].decode()}" if literals else ""
    if _SINGLE_QUOTES.search(bytes(body[:_MAX_BEGIN])):
        hint += "; JSON has names and texts in double quotes, not in single ones"
    return DecodingError(f"body: expected JSON; got something else: {reason}{hint}")


class _Document:
    """A large document.

    Attributes:
        text: bytes of the document.
        unread: lists that nobody has read yet.
    """

    def __init__(self, text: memoryview) -> None:
        """Read nothing yet."""
        self.text = text
        self.unread = UnreadLists()

    def object(self, start: int, stop: int) -> Any:
        """Return the value from `start` to `stop`, its long lists left as text."""
        spans = list(_long_lists(self.text, start, stop))
        if not spans:
            return _piece(self.text[start:stop], start)
        # no client can guess the number, so no number of the client's can be taken for a list
        first = getrandbits(61) + (1 << 61)
        pieces: list[Buffer] = []
        end = start
        for index, (begin, behind) in enumerate(spans):
            pieces += (self.text[end:begin], b"[%d]" % (first + index))
            end = behind
        value = _piece(b"".join((*pieces, self.text[end:stop])), start)
        lists = {first + index: LongJsonList(self, *span) for index, span in enumerate(spans)}
        for found in lists.values():
            self.unread.add(found)
        return _with_lists(value, lists, 0)

    def elements(self, start: int, stop: int) -> list[Any]:
        """Return the elements of a list whose insides are the text from `start` to `stop`."""
        found: list[Any] = _piece(b"".join((b"[", self.text[start:stop], b"]")), start)
        return found


class LongJsonList(LongList):
    """A list in a large document."""

    def __init__(self, document: _Document, start: int, stop: int) -> None:
        """Read from the bracket at `start` to the one before `stop`."""
        self._document = document
        self._start = start
        self._stop = stop

    def pieces(self) -> Iterator[list[Any] | LongList]:
        """Yield the elements, see `LongList.pieces`."""
        document, start, stop = self._document, self._start + 1, self._stop - 1
        while True:
            end = _last_comma(document.text, start, stop)
            if end < 0:
                end = _first_comma(document.text, start, stop)
                yield self._long_element(start, end)
            else:
                elements = document.elements(start, end)
                # a list may be empty, an element not
                if not elements and (start > self._start + 1 or end < stop):
                    raise DecodingError(
                        f"body: expected JSON; got a comma without a value (byte {start})"
                    )
                yield elements
            if end == stop:
                break
            start = end + 1
        document.unread.remove(self)

    def _long_element(self, start: int, stop: int) -> list[Any] | LongList:
        first, last = _ends(self._document.text, start, stop)
        text = self._document.text
        if bytes(text[first : first + 1]) == b"[" and bytes(text[last - 1 : last]) == b"]":
            return LongJsonList(self._document, first, last)
        return [self._document.object(start, stop)]


def _piece(text: Buffer, place: int) -> Any:
    """Return the value of a text, a part of a document that begins at the byte `place`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise _no_json(text, f"{err.msg} (near byte {place + err.pos})") from err


def _with_lists(value: Any, lists: dict[int, LongJsonList], depth: int) -> Any:
    """Return `value` with long lists in place of the numbers that stand for them."""
    if isinstance(value, dict):
        if depth > MAX_LEVELS:
            raise _too_deep()
        return {key: _with_lists(inner, lists, depth + 1) for key, inner in value.items()}
    if isinstance(value, list) and len(value) == 1 and type(value[0]) is int:
        return lists.get(value[0], value)
    return value


def _long_lists(text: memoryview, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each long list whose parents are objects alone."""
    count = 0
    while start < stop:
        begin = _first_list(text, start, stop)
        if begin < 0:
            break
        count += 1
        if count > MAX_LISTS:
            raise DecodingError(f"body: expected at most {MAX_LISTS} lists in objects; got more")
        start = _list_end(text, begin, stop)
        if start - begin >= _LONG_BYTES:
            yield begin, start


def _first_list(text: memoryview, start: int, stop: int) -> int:
    """Return the place of the first bracket that opens a list; -1 if there is none."""
    for begin, plain in _windows(text, start, stop):
        found = plain.find(b"[")
        if found >= 0:
            return begin + found
    return -1


def _list_end(text: memoryview, start: int, stop: int) -> int:
    """Return the place behind the bracket that closes the one at `start`; `stop` without one."""
    depth = 0
    for begin, plain in _windows(text, start, stop):
        opened, closed = plain.count(b"["), plain.count(b"]")
        if closed >= depth:
            changes = _LIST_DEPTH[np.frombuffer(plain, "u1")]
            places = np.flatnonzero(changes)
            ends = places[np.cumsum(changes[places], dtype="i4") == -depth]
            if len(ends):
                return begin + int(ends[0]) + 1
        depth += opened - closed
    return stop


def _first_comma(text: memoryview, start: int, stop: int) -> int:
    """Return the place of the first comma that is within no list or object; `stop` without one."""
    depth = 0
    for begin, plain in _windows(text, start, stop):
        opened, closed = _brackets(plain)
        # most windows lie within lists from end to end, and counting is cheap
        if closed >= depth or depth + opened > MAX_LEVELS:
            commas = _outer_commas(plain, depth)
            if len(commas):
                return begin + int(commas[0])
        depth += opened - closed
    return stop


def _brackets(plain: bytes) -> tuple[int, int]:
    """Return how many lists and objects open, and how many close."""
    return plain.count(b"[") + plain.count(b"{"), plain.count(b"]") + plain.count(b"}")


def _last_comma(text: memoryview, start: int, stop: int) -> int:
    """Return the place of the last comma that is within no list or object, in the next piece.

    That is `stop` if the text up to there is no longer than a piece, and -1 if there is no comma.
    """
    if stop - start <= PIECE_BYTES:
        return stop
    plain, _ = _blotted(bytes(text[start : start + PIECE_BYTES]), "")
    if _brackets(plain) == (0, 0):
        place = plain.rfind(b",")
    else:
        commas = _outer_commas(plain, 0)
        place = int(commas[-1]) if len(commas) else -1
    return place if place < 0 else start + place


def _outer_commas(plain: bytes, depth: int) -> Array:
    """Return the places of commas that are within no list or object.

    At the beginning of `plain`, `depth` lists and objects are open.
    """
    characters = np.frombuffer(plain, "u1")
    depths = np.cumsum(_DEPTH[characters], dtype="i4")
    if depth + int(depths.max(initial=0)) > MAX_LEVELS:
        raise _too_deep()
    return np.flatnonzero((characters == _COMMA) & (depths == -depth))


def _too_deep() -> InvalidInput:
    return InvalidInput(f"body: expected at most {MAX_LEVELS} levels of lists; got more")


def _ends(text: memoryview, start: int, stop: int) -> tuple[int, int]:
    """Return `start` and `stop` without the blanks behind the one and before the other."""
    while start < stop:
        window = bytes(text[start : min(start + _LARGEST_WINDOW, stop)])
        start += len(window) - len(window.lstrip(_BLANKS))
        if not window.isspace():
            break
    while start < stop:
        window = bytes(text[max(start, stop - _LARGEST_WINDOW) : stop])
        stop -= len(window) - len(window.rstrip(_BLANKS))
        if not window.isspace():
            break
    return start, stop


def _windows(text: memoryview, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yield the text in windows, each with its place, and with the insides of strings blotted out.

    The text begins outside of strings. Windows grow: what is looked for is often near.
    """
    size, state = _SMALLEST_WINDOW, ""
    while start < stop:
        window, state = _blotted(bytes(text[start : min(start + size, stop)]), state)
        yield start, window
        start += len(window)
        size = min(size * 4, _LARGEST_WINDOW)


def _blotted(window: bytes, state: str) -> tuple[bytes, str]:
    r"""Return a part of a document with quotes in place of all characters within strings.

    `state` is where the part before ended: nothing for outside of strings, `"` for within a string,
    `\` for within a string and behind a backslash. The state at the end is returned, too.
    """
    if not state and b'"' not in window:
        return window, state
    plain = window
    if state == "\\":
        plain = b"_" + plain[1:]
    if b"\\" in plain:
        # first a backslash that stands for itself, and then a quote that does
        plain = plain.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    characters = np.frombuffer(plain, "u1")
    within = np.logical_xor.accumulate(characters == _QUOTE)
    if state:
        within = ~within
    blotted = np.where(within, _QUOTE, characters).astype("u1", copy=False).tobytes()
    if not within[-1]:
        return blotted, ""
    return blotted, "\\" if plain.endswith(b"\\") else '"'
