"""Shapes that clients send: bounded before they are multiplied, or anything of their size is made.

A few bytes can name a shape of a hundred thousand axes, whose product alone takes seconds, or one
of no elements whose other axes are beyond what numpy can count.
"""

from __future__ import annotations

from math import prod

from batcher.core.error_text import brief
from batcher.errors import InvalidInput

MAX_AXES = 32
"""Most axes of a tensor, or levels of nested lists. Models have less than ten; numpy ends at 64."""

MAX_AXIS_SIZE = (1 << 31) - 1
"""Largest size of one axis: what ONNX Runtime's kernels and most clients count with."""

MAX_TENSOR_BYTES = (1 << 63) - 1
"""Most bytes of a tensor whose axes of size 0 count as 1: numpy can count no more."""


def checked_shape(shape: object, itemsize: int, where: str) -> tuple[int, ...]:
    """Return `shape`, a list of sizes as a client sent it, whose product is then safe to make.

    Args:
        shape: what the client sent, of any type.
        itemsize: bytes of one element.
        where: which tensor it is, for the error.

    Raises:
        InvalidInput: `shape` is no list of whole numbers of 0 or more, or is beyond a limit.
    """
    if not isinstance(shape, list | tuple):
        raise InvalidInput(f"{where}: expected a shape such as [2,3]; got {brief(shape)}")
    if len(shape) > MAX_AXES:
        raise too_many_axes(len(shape), where)
    # not isinstance: to Python a boolean is an int
    if any(type(size) is not int or size < 0 for size in shape):
        raise InvalidInput(f"{where}: expected a shape of whole numbers; got {brief(shape)}")
    sizes = tuple(shape)
    _check_size(sizes, itemsize, where)
    return sizes


def _check_size(sizes: tuple[int, ...], itemsize: int, where: str) -> None:
    """Check the sizes of at most MAX_AXES axes. Raises InvalidInput."""
    if max(sizes, default=0) > MAX_AXIS_SIZE:
        raise InvalidInput(
            f"{where}: expected axes of at most {MAX_AXIS_SIZE} elements; got {brief(list(sizes))}"
        )
    # At most 32 factors of 31 bits, so this product is small whatever the client sent.
    if prod(max(size, 1) for size in sizes) * itemsize > MAX_TENSOR_BYTES:
        raise InvalidInput(
            f"{where}: expected a tensor of at most {MAX_TENSOR_BYTES} bytes, axes of size 0 "
            f"counted as 1; got shape {brief(list(sizes))}"
        )


def too_many_axes(count: int, where: str) -> InvalidInput:
    """Return the error for a shape of `count` axes; `where` says which tensor it is."""
    return InvalidInput(f"{where}: expected a shape of at most {MAX_AXES} axes; got {count}")
