"""Conditions on values whose dtypes and shapes are known: checked once, and asked for each request.

    Condition  +  types of the values  -->  Test: arrays of a request --> one truth value a row

A test runs NumPy on whole arrays. Nothing of the text is ever run.

Sums, means and arithmetic are those of 64-bit floats, whatever the dtypes: in UINT8, 3 - 5 is 254.
Values are compared in their own dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Final

import numpy as np

from batcher.config.pipelines.expression import (
    REDUCTIONS,
    Condition,
    Constant,
    Element,
    Function,
    Name,
    Node,
    Operation,
)
from batcher.core.ragged import is_ragged
from batcher.core.spec import Array, TensorSpec

Test = Callable[[Mapping[str, Array]], Array]
"""Returns for each row whether the condition holds, of arrays by their references."""

_Ask = Callable[[Mapping[str, Array]], Any]

_FLOAT: Final = np.dtype(np.float64)

_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**64 - 1
"""Whole numbers that an integer of NumPy's can be."""

_ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
_TRUTHS: Final[dict[str, Callable[..., Any]]] = {
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    ">": np.greater,
    "and": np.logical_and,
    "or": np.logical_or,
}


def test_of(condition: Condition, types: Mapping[str, TensorSpec]) -> Test:
    """Return the test of `condition` on values of `types`, by their references. Any thread.

    Raises:
        ValueError: the condition does not fit the values; the message says what was expected.
    """
    kind, ask = _compiled(condition.root, types)
    if kind != "truth":
        raise ValueError(f"expected a condition that is true or false; got a {kind}")
    if not condition.references:
        raise ValueError("expected a condition on at least one value of the pipeline")

    def test(arrays: Mapping[str, Array]) -> Array:
        with np.errstate(all="ignore"):  # of a division by 0 there is infinity, or NaN
            return np.asarray(ask(arrays), bool)

    return test


def _compiled(node: Node, types: Mapping[str, TensorSpec]) -> tuple[str, _Ask]:
    """Return the kind of a value (`number`, `truth`, `text`), and what gives it."""
    match node:
        case Constant(value):
            return _constant(value)
        case Name(reference):
            return _value(reference, types[reference])
        case Element(of, index):
            return _element(of.reference, index, types[of.reference])
        case Function("abs", argument):
            inner = _of_kind(argument, types, "number", "abs()")
            return "number", lambda arrays: np.absolute(inner(arrays), dtype=_FLOAT)
        case Function(name, argument):
            return "number", _reduction(name, argument, types)
        case Operation():
            return _operation(node, types)
    raise AssertionError(node)


def _constant(value: Any) -> tuple[str, _Ask]:
    if isinstance(value, str):
        text = value.encode()
        return "text", lambda arrays: text
    if isinstance(value, bool):
        return "truth", lambda arrays: value
    try:
        as_float = float(value)
    except OverflowError:
        digits = len(str(value))
        raise ValueError(f"expected numbers up to 1.8e308; got one of {digits} digits") from None
    # NumPy takes a larger whole number for an object, of which it has no absolute value.
    number = value if _LEAST_WHOLE <= value <= _MOST_WHOLE else as_float
    return "number", lambda arrays: number


def _kind(tensor: TensorSpec, reference: str) -> str:
    if tensor.datatype.name == "BF16":
        raise ValueError(f"expected numbers that NumPy knows; got {reference} of BF16")
    return {"BYTES": "text", "BOOL": "truth"}.get(tensor.datatype.name, "number")


def _value(reference: str, tensor: TensorSpec) -> tuple[str, _Ask]:
    if tensor.shape not in ((), (1,)):
        raise ValueError(
            f"expected one value a row; got {reference} of {tensor.describe()}: write "
            f"`max({reference})` or `{reference}[0]`"
        )

    def ask(arrays: Mapping[str, Array]) -> Array:
        array = arrays[reference]
        return array.reshape(len(array))

    return _kind(tensor, reference), ask


def _element(reference: str, index: int, tensor: TensorSpec) -> tuple[str, _Ask]:
    if len(tensor.shape) != 1 or tensor.is_ragged or not 0 <= index < tensor.shape[0]:
        got = f"{reference} of {tensor.describe()}"
        raise ValueError(f"expected rows of one fixed axis with an element {index}; got {got}")
    return _kind(tensor, reference), lambda arrays: arrays[reference][:, index]


def _of_kind(node: Node, types: Mapping[str, TensorSpec], kind: str, place: str) -> _Ask:
    found, ask = _compiled(node, types)
    if found != kind:
        raise ValueError(f"{place}: expected a {kind}; got a {found}")
    return ask


def _reduction(name: str, argument: Node, types: Mapping[str, TensorSpec]) -> _Ask:
    assert name in REDUCTIONS, name
    if not isinstance(argument, Name):
        raise ValueError(f"{name}(): expected an input or `step.output`")
    reference, tensor = argument.reference, types[argument.reference]
    if not tensor.shape:
        raise ValueError(f"{name}(): expected several values a row; got {reference}, which is one")
    if name == "len":
        return lambda arrays: _lengths(arrays[reference])
    if _kind(tensor, reference) == "text" or (tensor.shape.count(-1) and name != "sum"):
        what = "numbers, of fixed shape" if name != "sum" else "numbers"
        raise ValueError(f"{name}(): expected rows of {what}; got {reference} {tensor.describe()}")
    size = prod(tensor.shape)
    if name == "max":
        return lambda arrays: np.maximum.reduce(_flat(arrays[reference], size), axis=1)
    if name == "min":
        return lambda arrays: np.minimum.reduce(_flat(arrays[reference], size), axis=1)
    if name == "argmax":
        return lambda arrays: _flat(arrays[reference], size).argmax(axis=1)
    if name == "mean":
        return lambda arrays: _sums(arrays[reference]) / size
    return lambda arrays: _sums(arrays[reference])


def _flat(array: Array, size: int) -> Array:
    """Return rows of fixed shape, of `size` values each, as rows with one axis."""
    # No `-1`: of no rows, as behind a blank picture, NumPy cannot say what that would be.
    return array if array.ndim == 2 else array.reshape(len(array), size)


def _sums(array: Array) -> Array:
    if array.dtype.hasobject:  # ragged, though it may have no row that would show it
        return np.array([row.sum(dtype=_FLOAT) for row in array])
    axes = tuple(range(1, array.ndim))
    sums: Array = np.add.reduce(array, axis=axes, dtype=_FLOAT)
    return sums


def _lengths(array: Array) -> Array:
    if is_ragged(array):
        return np.array([len(row) for row in array])
    return np.full(len(array), array.shape[1] if array.ndim > 1 else 0)


def _operation(node: Operation, types: Mapping[str, TensorSpec]) -> tuple[str, _Ask]:
    sign = node.operator
    if sign in ("and", "or", "not"):
        right = _of_kind(node.right, types, "truth", f"`{sign}`")
        if node.left is None:
            return "truth", lambda arrays: np.logical_not(right(arrays))
        left = _of_kind(node.left, types, "truth", f"`{sign}`")
    else:
        assert node.left is not None
        (kind, left), (other, right) = _compiled(node.left, types), _compiled(node.right, types)
        if kind != other or (kind != "number" and sign not in ("==", "!=")):
            raise ValueError(f"`{sign}`: expected two numbers; got a {kind} and a {other}")
    if sign in _ARITHMETIC:
        arithmetic = _ARITHMETIC[sign]
        return "number", lambda arrays: arithmetic(left(arrays), right(arrays), dtype=_FLOAT)
    truth = _TRUTHS[sign]
    return "truth", lambda arrays: truth(left(arrays), right(arrays))
