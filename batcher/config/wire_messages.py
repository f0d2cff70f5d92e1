"""Messages of protocol buffers in a file, read without a schema.

A message is a row of fields, each with its number and, for what is itself a message, its length in
bytes. So a reader needs neither the schema nor the whole file: whatever is not asked for is skipped
by its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

TEXT_BYTES = 1 << 16
"""Longest name that is read; a longer one belongs to no tensor that a person has named."""

MAX_DEPTH = 32
"""Most messages of one kind within each other, such as graphs in the branches of an `If`."""


class Message(NamedTuple):
    """A field that is a message, a text or bytes: where it lies in the file."""

    start: int
    stop: int


Field = tuple[int, int | Message]


class MessageReader:
    """Reads messages of one file.

    Raises ValueError where the file is none of protocol buffers.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read from `file`, which is open."""
        self._file = file

    def messages(self, message: Message, wanted: int) -> Iterator[Message]:
        """Yield the fields of number `wanted` that are messages."""
        for number, value in self.fields(message):
            if number == wanted and isinstance(value, Message):
                yield value

    def number_of(self, message: Message, wanted: int) -> int:
        """Return the last number in the field `wanted`, 0 without one."""
        found = 0
        for number, value in self.fields(message):
            if number == wanted and isinstance(value, int):
                found = value
        return found

    def integers(self, message: Message, wanted: int) -> Iterator[int]:
        """Yield the numbers of a field that is repeated, one by one or packed."""
        for number, value in self.fields(message):
            if number == wanted:
                if isinstance(value, int):
                    yield value
                else:
                    self._file.seek(value.start)
                    while self._file.tell() < value.stop:
                        found = self._varint()
                        place = self._file.tell()
                        yield found
                        self._file.seek(place)

    def text_of(self, message: Message, wanted: int) -> str:
        """Return the first text in the field `wanted`, empty without one."""
        return next(map(self.text, self.messages(message, wanted)), "")

    def text(self, message: Message) -> str:
        """Return `message` as text. Raises ValueError for one that is too long."""
        if message.stop - message.start > TEXT_BYTES:
            raise ValueError("expected a shorter name")
        self._file.seek(message.start)
        return self._file.read(message.stop - message.start).decode()

    def data(self, message: Message, most: int) -> bytes:
        """Return the first bytes of `message`, at most so many."""
        self._file.seek(message.start)
        return self._file.read(min(message.stop - message.start, most))

    def fields(self, message: Message) -> Iterator[Field]:
        """Yield number and value of each field; what is neither number nor message is skipped."""
        place = message.start
        while place < message.stop:
            self._file.seek(place)
            key = self._varint()
            number, wire = key >> 3, key & 7
            if wire == 0:
                value = self._varint()
                place = self._file.tell()
                yield number, value
            elif wire == 2:
                length = self._varint()
                start = self._file.tell()
                place = start + length
                if length < 0 or place > message.stop:
                    raise ValueError("expected a field within its message")
                yield number, Message(start, place)
            elif wire in (1, 5):
                place = self._file.tell() + (8 if wire == 1 else 4)
            else:
                raise ValueError(f"expected a field of a known kind; got {wire}")

    def _varint(self) -> int:
        """Return the next number, of at most 64 bits, signed."""
        found = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte:
                raise ValueError("expected more bytes")
            found |= (byte[0] & 127) << shift
            if byte[0] < 128:
                found &= (1 << 64) - 1
                return found - (1 << 64) if found >> 63 else found
        raise ValueError("expected a number of at most 64 bits")
