"""Documents that count as large although they are small, so that tests can look at all cuts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batcher.codecs.formats import json_text, msgpack_lists

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def pieces_of(size: int, long_bytes: int = 1) -> Iterator[None]:
    """Have every document read in pieces of `size` bytes, its lists from `long_bytes` on."""
    with pytest.MonkeyPatch.context() as patch:
        for reader in (json_text, msgpack_lists):
            patch.setattr(reader, "LARGE_BYTES", 1)
            patch.setattr(reader, "_LONG_BYTES", long_bytes)
            patch.setattr(reader, "PIECE_BYTES", size)
        patch.setattr(msgpack_lists, "_MIN_RUN", 2)
        patch.setattr(json_text, "_SMALLEST_WINDOW", max(size // 4, 1))
        patch.setattr(json_text, "_LARGEST_WINDOW", size)
        yield


_MEASURE = """
import sys
from batcher.codecs.content import Content
from batcher.codecs.format_table import decode_body, format_named
from tests.support.codec_inputs import one_input

def resident(name):
    text = open("/proc/self/status").read()
    return int(text.split(name + ":")[1].split()[0]) * 1024

media_type, dtype, path = sys.argv[1:]
body = open(path, "rb").read()
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
decode_body(format_named(media_type), Content(body, media_type), one_input(dtype, (-1,)))
print((resident("VmHWM") - before + len(body)) / len(body))
"""


def memory_ratio(media_type: str, dtype: str, body: bytes, folder: Path) -> float:
    """Return the memory at the highest, of body and decoding, in bytes for each byte of the body.

    The body is decoded in a process of its own, for a model of one input of `dtype`, whose rows
    have one free axis.
    """
    path = folder / "body"
    path.write_bytes(body)
    command = [sys.executable, "-c", _MEASURE, media_type, dtype, str(path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(found.stdout)
