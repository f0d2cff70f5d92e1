"""Binary bodies at their worst: MessagePack, npy, raw bytes and multipart."""

from __future__ import annotations

import struct
from functools import partial
from io import BytesIO

import numpy as np
from numpy.lib import format as npy_format

from benchmarks.hostile_kinds.bodies import ALL_CODINGS, Body
from benchmarks.hostile_kinds.kind import LIMIT, repeated
from benchmarks.hostile_kinds.texts import FLOATS, TEXTS, pattern

MSGPACK, NPY = "application/msgpack", "application/x-npy"
PICTURES = "/models/pictures/predict"
FORM = "multipart/form-data; boundary=b"
_INPUT = b"\x81\xa6inputs\x81\xa1x"
_INSTANCES = b"\x81\xa9instances"
_ARRAY = b"\x85\xa2nd\xc3\xa4type\xa3<f4\xa4kind\xa0\xa5shape\x92\x01\x01\xa4data\xc4\x04\0\0\0\0"


def msgpack_list(unit: bytes, head: bytes = _INPUT, per_unit: int = 1) -> bytes:
    """Return a list that fills 64 MiB with `unit`, each of which is `per_unit` elements."""
    count = (LIMIT - len(head) - 5) // len(unit)
    return head + b"\xdd" + struct.pack(">I", count * per_unit) + unit * count


def msgpack_map() -> bytes:
    """Return a map of millions of keys."""
    count = LIMIT // 7
    keys = b"".join([b"\xce" + struct.pack(">I", number) + b"\0" for number in range(count)])
    return b"\x81\xa6inputs\xdf" + struct.pack(">I", count) + keys


def msgpack_array() -> bytes:
    """Return one array of 64-bit floats that become 32-bit ones."""
    count = LIMIT // 8 - 16
    head = (
        b"\x85\xa2nd\xc3\xa4type\xa3<f8\xa4kind\xa0\xa5shape\x92\x01\xce"
        + struct.pack(">I", count)
        + b"\xa4data\xc6"
        + struct.pack(">I", 8 * count)
    )
    return _INPUT + head + bytes(8 * count)


def npy(dtype: str, fortran: bool = False) -> bytes:
    """Return a file of zeros with two axes."""
    count = LIMIT // np.dtype(dtype).itemsize - 256
    file = BytesIO()
    head = {"descr": dtype, "fortran_order": fortran, "shape": (64, count // 64)}
    npy_format.write_array_header_1_0(file, head)
    return file.getvalue() + bytes(count // 64 * 64 * np.dtype(dtype).itemsize)


def part(content: bytes, name: bytes = b"x", head: bytes = b"") -> bytes:
    """Return one part of a form."""
    disposition = b'Content-Disposition: form-data; name="%s"; filename="a"\r\n' % name
    return b"--b\r\n" + disposition + head + b"\r\n" + content + b"\r\n"


def numbered_parts() -> bytes:
    """Return a form with a part of each name."""
    count = LIMIT // (len(part(b"")) + 8)
    return b"".join([part(b"", b"%d" % number) for number in range(count)]) + b"--b--\r\n"


def _msgpack(name: str, unit: bytes, path: str = FLOATS) -> Body:
    return Body(f"msgpack_{name}", path, MSGPACK, partial(msgpack_list, unit))


MSGPACK_BODIES = (
    Body("msgpack_ints", FLOATS, MSGPACK, partial(msgpack_list, b"\0"), codings=ALL_CODINGS),
    _msgpack("floats", b"\xcb" + bytes(8)),
    _msgpack("lists", b"\x90"),
    _msgpack("rows", b"\x91\0"),
    _msgpack("maps", b"\x80"),
    _msgpack("binaries", b"\xc4\0", TEXTS),
    _msgpack("strings", b"\xa0", TEXTS),
    _msgpack("times", b"\xd6\xff\0\0\0\0"),
    _msgpack("extensions", b"\xc7\0\1"),
    Body("msgpack_keys", FLOATS, MSGPACK, msgpack_map),
    Body("msgpack_array", FLOATS, MSGPACK, msgpack_array, codings=ALL_CODINGS),
    Body("msgpack_arrays", FLOATS, MSGPACK, partial(msgpack_list, _ARRAY, _INSTANCES)),
    Body("msgpack_deep", FLOATS, MSGPACK, partial(pattern, b"\x91")),
)

OTHER_BODIES = (
    Body("npy_floats", FLOATS, NPY, partial(npy, "<f4"), codings=ALL_CODINGS),
    Body("npy_big_endian", FLOATS, NPY, partial(npy, ">f4")),
    Body("npy_columns", FLOATS, NPY, partial(npy, "<f4", fortran=True)),
    Body("npy_bools", FLOATS, NPY, partial(npy, "|b1")),
    Body("npy_shorts", FLOATS, NPY, partial(npy, "<i2")),
    Body("octets", FLOATS, "application/octet-stream", lambda: bytes(LIMIT), codings=ALL_CODINGS),
)

FORM_BODIES = (
    Body(
        "form_parts",
        PICTURES,
        FORM,
        partial(repeated, b"", part(b"GIF89a"), b"--b--\r\n", b""),
        codings=ALL_CODINGS,
    ),
    Body("form_names", PICTURES, FORM, numbered_parts),
    Body(
        "form_one_part",
        PICTURES,
        FORM,
        lambda: part(bytes(LIMIT - 200)) + b"--b--\r\n",
    ),
    Body(
        "form_heads",
        PICTURES,
        FORM,
        lambda: part(b"", head=pattern(b"a: b\r\n")[: (LIMIT - 200) // 6 * 6]) + b"--b--\r\n",
    ),
    Body(
        "form_almost_boundaries",
        PICTURES,
        FORM,
        lambda: part(pattern(b"\r\n--")[: LIMIT - 200]) + b"--b--\r\n",
    ),
    Body("form_line_ends", PICTURES, FORM, partial(pattern, b"\r\n")),
)
