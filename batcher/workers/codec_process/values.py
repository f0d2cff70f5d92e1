"""A value in a file of memory, on its way between two processes of this program.

The value is pickled; both sides are the same program. Large buffers (arrays, bodies) are not copied
into the pickle but lie behind it, and the other side reads them in place:

| in the file | bytes |
|---|---|
| number of buffers, bytes of the pickle | 2 x uint64 |
| bytes of each buffer | uint64 each |
| the pickle | |
| the buffers | each at a multiple of 64 |

Arrays of objects hold BYTES elements. A pickle would name each element by itself. So the elements
travel as their lengths and one block, and become objects in `join_elements`, a loop of Python,
during which the interpreter switches to other threads.
"""

from __future__ import annotations

import os
import pickle
from array import array
from io import BytesIO
from math import prod
from struct import Struct
from typing import Any

import numpy as np

from batcher.core.copied_bytes import copied_bytes
from batcher.core.element_sizes import pieces_of
from batcher.core.mappings import Mapping
from batcher.core.spec import Array

_COUNTS = Struct("<QQ")
_ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector there is."""


class _ValuePickler(pickle.Pickler):
    """Pickles a value whose large buffers stay where they are."""

    def reducer_override(self, value: Any) -> Any:
        """Return how to rebuild a `value` of a kind that pickle treats too slowly, or not."""
        if isinstance(value, memoryview):
            return memoryview, (pickle.PickleBuffer(value),)
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            lengths, content = array("q"), bytearray()
            for piece in pieces_of(value):
                if set(map(type, piece)) != {bytes}:
                    return NotImplemented
                lengths.extend(map(len, piece))
                content += b"".join(piece)
            return join_elements, (memoryview(lengths), memoryview(content), value.shape)
        return NotImplemented


def join_elements(lengths: memoryview, content: memoryview, shape: tuple[int, ...]) -> Array:
    """Return an array of `shape` with the elements that lie in `content`. Any thread."""
    elements = np.empty(prod(shape), object)
    start = 0
    for index, length in enumerate(lengths.cast("B").cast("q")):
        elements[index] = copied_bytes(content[start : (start := start + length)])
    return elements.reshape(shape)


def file_of(value: object) -> int:
    """Return a new file of memory with `value` in it; the caller closes the file.

    Other threads run while the bytes are copied. Any thread.

    Raises:
        OSError: there is no memory for the value.
    """
    fd = os.memfd_create("batcher-codec")
    try:
        _write_value(fd, value)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_value(fd: int, value: object) -> None:
    buffers: list[pickle.PickleBuffer] = []
    out = BytesIO()
    _ValuePickler(out, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append).dump(value)
    pieces = [buffer.raw() for buffer in buffers]
    sizes = np.array([piece.nbytes for piece in pieces], np.uint64).tobytes()
    pickled = out.getbuffer()
    end = _write(fd, 0, _COUNTS.pack(len(pieces), len(pickled)) + sizes)
    end = _write(fd, end, pickled)
    for piece in pieces:
        end = _write(fd, _aligned(end), piece)
    os.ftruncate(fd, max(_aligned(end), 1))


def read_value(fd: int) -> Any:
    """Return the value in the file `fd`; its buffers are views of the file. Any thread.

    Raises:
        MemoryError: the system has no room for a view of the file.
    """
    try:
        memory = memoryview(Mapping(fd, os.fstat(fd).st_size))
    except OSError as err:
        raise MemoryError(str(err)) from err
    count, nbytes = _COUNTS.unpack_from(memory)
    start = _COUNTS.size + 8 * count
    sizes = np.frombuffer(memory, np.uint64, count, _COUNTS.size).tolist()
    end = start + nbytes
    buffers = []
    for size in sizes:
        first = _aligned(end)
        end = first + size
        buffers.append(memory[first:end])
    return pickle.loads(memory[start : start + nbytes], buffers=buffers)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _write(fd: int, offset: int, data: bytes | memoryview) -> int:
    """Write `data` at `offset`, and return the end."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        offset += written
        rest = rest[written:]
    return offset
