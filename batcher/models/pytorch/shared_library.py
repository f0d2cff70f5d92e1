"""A shared library that leaves the memory of the process when it is closed.

GCC marks some symbols of C++ code as unique (`STB_GNU_UNIQUE`): of all libraries that have a symbol
of that name, the process uses one. A library with such a symbol is never unloaded, whoever closes
the library. Compiled models have some, from templates of PyTorch's headers, and they hold the
model's weights. So the mark is taken off in the library's file, before the library is opened: the
symbols become weak, as other compilers make them.

    offset in an ELF file of 64 bits             what stands there
    header + 0x28, 0x3A, 0x3C                    place, entry size and number of the sections
    section + 4, 0x18, 0x20, 0x38                type, place, size and entry size of a section
    symbol + 4                                   mark (upper half byte) and type (lower half)
"""

from __future__ import annotations

import _ctypes
import ctypes
import struct
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path

_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_DYNAMIC_SYMBOLS = 11
_WEAK, _UNIQUE = 2, 10


def open_library(path: Path) -> ctypes.CDLL:
    """Open the library at `path`, whose file is changed so that `close_library` unloads it.

    Raises:
        OSError: the library cannot be opened.

    Any thread.
    """
    _clear_unique_marks(path)
    return ctypes.CDLL(str(path))


def close_library(library: ctypes.CDLL) -> None:
    """Unload `library`, none of whose functions may be called from now on. Any thread."""
    _ctypes.dlclose(library._handle)


def _clear_unique_marks(path: Path) -> None:
    """Make weak symbols of the unique symbols in the file at `path`. Any thread."""
    with path.open("r+b") as file, mmap(file.fileno(), 0) as content:
        if content[: len(_ELF64_LITTLE_ENDIAN)] != _ELF64_LITTLE_ENDIAN:
            return  # another system's library, which has no such marks
        for symbol in _symbols(content):
            mark = content[symbol + 4]
            if mark >> 4 == _UNIQUE:
                content[symbol + 4] = _WEAK << 4 | mark & 0xF


def _symbols(content: mmap) -> Iterator[int]:
    """Yield the place of each dynamic symbol in an ELF file. Any thread."""
    (sections,) = struct.unpack_from("<Q", content, 0x28)
    entry_size, count = struct.unpack_from("<HH", content, 0x3A)
    for section in range(sections, sections + entry_size * count, entry_size):
        (kind,) = struct.unpack_from("<I", content, section + 4)
        if kind == _DYNAMIC_SYMBOLS:
            place, size = struct.unpack_from("<QQ", content, section + 0x18)
            (step,) = struct.unpack_from("<Q", content, section + 0x38)
            yield from range(place, place + size, step)
