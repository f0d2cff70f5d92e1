"""Bodies for codec tests: values of every datatype, damaged bytes, pictures; measured memory."""

from __future__ import annotations

import gc
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats import bfloat16
from batcher.core.request import InferenceResponse
from batcher.core.spec import (
    DATATYPES,
    Array,
    ImageSpec,
    ModelSpec,
    TensorSpec,
    check_inputs,
    datatype,
)
from batcher.errors import DecodingError, InvalidInput, TooLarge, UnsupportedMediaType
from tests.support.models import model_spec, tensor

REFUSALS = (DecodingError, InvalidInput, TooLarge, UnsupportedMediaType)
"""All that a codec may raise, whatever its arguments."""

NUMBERS = [name for name in DATATYPES if name != "BYTES"]
FLOATS = ["FP16", "FP32", "FP64"]
INTEGERS = [name for name in NUMBERS if "INT" in name]
ROW_SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
MIB = 1 << 20


def echo_spec(*tensors: TensorSpec) -> ModelSpec:
    """Return a model whose outputs have the specs of its inputs, so that answers can be sent."""
    return model_spec(inputs=tensors, outputs=tensors)


def one_input(dtype: str = "FP32", shape: tuple[int, ...] = (2,), **more: Any) -> ModelSpec:
    """Return a model of one input `x`; `shape` is that of one row."""
    return echo_spec(tensor("x", dtype, shape, **more))


def response(**outputs: Array) -> InferenceResponse:
    """Return an answer with these outputs."""
    return InferenceResponse("m", "1", outputs, 0.0, 0.0, 1)


def arrays(dtype: str, shape: tuple[int, ...], finite: bool = False) -> st.SearchStrategy[Array]:
    """Return a strategy for arrays of a datatype; unless `finite`, also with NaN and infinities."""
    numpy_dtype = datatype(dtype).numpy
    if dtype == "BYTES":
        return hnp.arrays(
            object,
            shape,
            elements=st.text(st.characters(codec="utf-8"), max_size=8).map(str.encode),
        )
    if dtype == "BF16" and finite:
        return hnp.arrays("<f4", shape, elements=st.floats(-(2.0**127), 2.0**127, width=32)).map(
            bfloat16.from_float32
        )
    elements = (
        hnp.from_dtype(numpy_dtype, allow_nan=False, allow_infinity=False)
        if finite and dtype in FLOATS
        else None
    )
    return hnp.arrays(numpy_dtype, shape, elements=elements)


@st.composite
def batches(
    draw: st.DrawFn, dtypes: Sequence[str] = NUMBERS, finite: bool = False
) -> tuple[ModelSpec, Array]:
    """Draw a model of one input and 1 to 4 rows for it."""
    dtype, shape = draw(st.sampled_from(dtypes)), draw(ROW_SHAPES)
    free = tuple(-1 if draw(st.booleans()) else size for size in shape)
    return one_input(dtype, free), draw(arrays(dtype, (draw(st.integers(1, 4)), *shape), finite))


@st.composite
def damaged(draw: st.DrawFn, bodies: Sequence[bytes]) -> bytes:
    """Draw one of `bodies` with a few bytes changed, put in, taken out or cut off at the end."""
    body = bytearray(draw(st.sampled_from(bodies)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(body) - 1, 0)))
        change = draw(st.sampled_from(("set", "insert", "delete", "cut", "repeat")))
        if change == "set":
            body[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "insert":
            body[place:place] = draw(st.binary(min_size=1, max_size=5))
        elif change == "delete":
            del body[place : place + draw(st.integers(1, 8))]
        elif change == "cut":
            del body[place:]
        else:
            body[place:place] = body[place : place + 16]
    return bytes(body)


def decoded_or_refused(
    decode: Callable[[Content, ModelSpec], dict[str, Array]],
    body: Buffer,
    spec: ModelSpec,
    **content: Any,
) -> dict[str, Array] | None:
    """Return the inputs in `body`; None if the codec refused the body in words.

    Any other exception is a bug.
    """
    try:
        inputs = decode(Content(body, **content), spec)
        check_inputs(spec, inputs)
    except REFUSALS as err:
        refusal = str(err)
    else:
        return inputs
    assert refusal, "a refusal says what was expected"
    return None


def same(found: Array, expected: Array) -> None:
    """Assert that two arrays are the same to the last bit, NaN included."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert (
        found.tolist() == expected.tolist()
        if found.dtype == object
        else found.tobytes() == expected.tobytes()
    )


def picture_spec(
    shape: tuple[int, ...], mode: str = "RGB", dtype: str = "FP32", **more: Any
) -> ModelSpec:
    """Return a model of one picture `x`.

    Size and layout follow from `shape`, as in `model.yaml`.
    """
    channels = {"L": 1, "RGB": 3}[mode]
    first = len(shape) == 2 or shape[0] == channels
    height, width = shape[-2:] if first else shape[:2]
    image = ImageSpec(mode, height, width, channels_first=first, **more)
    return model_spec(inputs=(tensor("x", dtype, shape, image=image),))


def pixels(height: int = 4, width: int = 6, channels: int = 3) -> Array:
    """Return uint8 pixels that are all different, as far as 256 values go."""
    values = np.arange(height * width * channels) * 37 % 256
    return values.astype("u1").reshape(
        (height, width, channels) if channels > 1 else (height, width)
    )


def encoded(picture: Image.Image | Array, fmt: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    file = BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(
        file, fmt, **options
    )
    return file.getvalue()


def one_colour_png(width: int, height: int) -> bytes:
    """Return a whole grey PNG of one bit a pixel, without ever holding its pixels."""
    line = b"\0" * (1 + (width + 7) // 8)
    deflate = zlib.compressobj(9)
    data = b"".join(deflate.compress(line) for _ in range(height)) + deflate.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(value)) + name + value + struct.pack(">I", zlib.crc32(name + value))
        for name, value in chunks
    )


@contextmanager
def python_memory_below(limit: int) -> Iterator[None]:
    """Fail if Python and numpy together take more than `limit` bytes at a time inside the block."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"expected less than {limit} bytes at the peak; got {peak}"


@contextmanager
def process_memory_below(limit: int) -> Iterator[None]:
    """Fail if the process, C libraries included, grows by over `limit` bytes inside the block."""
    clear = Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")  # forget the peak so far
    except OSError:
        pytest.skip(
            "the peak of a process's memory can only be read on Linux, where that is allowed"
        )
    before = _peak_bytes()
    yield
    growth = _peak_bytes() - before
    assert growth < limit, f"expected to grow by less than {limit} bytes; grew by {growth}"


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) << 10
    )
