"""Makes wrong bytes of right ones.

A mutation knows nothing of what it mutates. It flips bits, cuts, repeats, moves and swaps pieces,
puts in words that are known to be trouble, changes numbers, and splices two messages. All of it
follows from a seed, so that a failure can be seen again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

NUMBERS = (
    b"0 1 -1 00 +1 127 128 255 256 65535 65536 2147483647 2147483648 4294967295 4294967296 "
    b"9223372036854775807 9223372036854775808 18446744073709551616 1e999 -0 0x10 1_0 1e400 NaN"
).split()

WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b"\t", b":", b";", b",", b'"'),
    *(b"\xff\xff\xff\xff", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\xdf\xff\xff\xff\xff"),
    *(b"{}", b"[]", b"[[", b"]]", b"null", b"true", b'""', b"\xef\xbb\xbf", b"\xc0\x80"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n", b"Host: \r\n"),
    *(b"X-Timeout-Ms: 1\r\n", b"X-Priority: 0\r\n", b"X-Timing: 1\r\n", b"Accept: */*;q=\r\n"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"5;a=b\r\nhello\r\n", b"-1\r\n", b" HTTP/1.0\r\n"),
    *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"%2F", b"%00", b"//", b"/../", b"?", b"#"),
    *(b"multipart/form-data; boundary=", b"charset=utf-16", b"--b\r\n", b"--b--\r\n"),
)

_DIGITS = re.compile(rb"\d+")

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutated(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return `data` with one to six mutations; `others` are what it may be spliced with."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(MUTATIONS)(chance, changed, others)
    return bytes(changed)


def _place(chance: random.Random, data: bytearray) -> int:
    """Return a place in `data`, half the times within its first 512 bytes, where heads are."""
    end = len(data) if chance.random() < 0.5 else min(len(data), 512)
    return chance.randrange(end + 1)


def _piece(chance: random.Random, data: bytearray) -> tuple[int, int]:
    start = _place(chance, data)
    return start, min(len(data), start + chance.choice((1, 2, 4, 16, 64, 1024)))


def _flip(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        place = min(_place(chance, data), len(data) - 1)
        data[place] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        place = min(_place(chance, data), len(data) - 1)
        data[place] = chance.choice((0, 1, 10, 13, 32, 127, 128, 255, chance.randrange(256)))


def _remove(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start, end = _piece(chance, data)
    del data[start:end]


def _repeat(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start, end = _piece(chance, data)
    data[end:end] = data[start:end] * chance.choice((1, 1, 2, 8, 64))


def _move(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start, end = _piece(chance, data)
    piece = data[start:end]
    del data[start:end]
    place = _place(chance, data)
    data[place:place] = piece


def _insert(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    place = _place(chance, data)
    data[place:place] = chance.choice(WORDS)


def _insert_line(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """Put a word in where a line begins, so that a field of a head stays a field."""
    place = data.find(b"\r\n", _place(chance, data))
    place = len(data) if place < 0 else place + 2
    data[place:place] = chance.choice(WORDS)


def _number(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    found = list(_DIGITS.finditer(data))
    if found:
        match = chance.choice(found)
        data[match.start() : match.end()] = chance.choice(NUMBERS)


def _swap_lines(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    lines = bytes(data).split(b"\r\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    data[:] = b"\r\n".join(lines)


def _cut(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_place(chance, data) :]


def _splice(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    start, end = _piece(chance, data)
    place = chance.randrange(len(other) + 1)
    data[start:end] = other[place : place + chance.choice((4, 32, 256, len(other)))]


def _random(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start, end = _piece(chance, data)
    data[start:end] = chance.randbytes(chance.choice((1, 4, 16, 200)))


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _set,
    _remove,
    _repeat,
    _move,
    _insert,
    _insert_line,
    _number,
    _number,
    _swap_lines,
    _cut,
    _splice,
    _random,
)
