"""Whether answers are the same: those of a row alone and in a batch, and those of two runs.

Kernels round differently at different batch sizes, so floats are compared by their distance in
units of the largest finite number that the output has given at all. What is a little off is a
warning, what is far off is a breach. Integers, booleans and texts must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from batcher.app.checking import rules
from batcher.app.checking.contract import Findings
from batcher.app.checking.runs import Answer
from batcher.codecs.formats.bfloat16 import to_float32
from batcher.core.spec import Array, TensorSpec, shape_text


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What two answers may differ by, in units of the output's largest number.

    Attributes:
        near: up to this they count as equal.
        far: beyond this they count as different.
    """

    near: float
    far: float


FULL = Tolerance(1e-3, 2e-2)
"""Rounding in float32 stays below 1e-3 over many layers, in TF32 about there.

What neighbours do is rarely below 2e-2.
"""

HALF = Tolerance(2e-2, 1e-1)
"""FP16 and BF16 have 11 and 8 bits."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the rows of one output are answered alone.

    Attributes:
        tensor: the output.
        rows: the answer of each row, as numbers or texts; None where there was none.
        scale: the largest finite number among them.
    """

    tensor: TensorSpec
    rows: tuple[Array | None, ...]
    scale: float

    @property
    def tolerance(self) -> Tolerance:
        """What its answers may differ by."""
        return HALF if self.tensor.datatype.name in ("FP16", "BF16") else FULL

    def gap(self, first: Array, second: Array) -> float:
        """Return how far two answers are apart, in units of the scale.

        Infinite where they cannot be compared.
        """
        if first.shape != second.shape:
            return inf
        return float(_apart(first, second).max(initial=0.0)) / self.scale

    def all_equal(self) -> bool:
        """Whether every row is answered the same, so that answers that change places cannot be seen."""
        found = [row for row in self.rows if row is not None]
        return all(self.gap(row, found[0]) <= self.tolerance.near for row in found[1:])


def expected_rows(tensor: TensorSpec, answers: Sequence[Answer | None]) -> Expected:
    """Return what the rows, each run alone, are answered in the output `tensor`."""
    rows = tuple(_values(answer, tensor) for answer in answers)
    finite = [
        np.abs(row[np.isfinite(row)]) for row in rows if row is not None and row.dtype.kind == "f"
    ]
    largest = max((float(values.max(initial=0.0)) for values in finite), default=0.0)
    return Expected(tensor, rows, largest or 1.0)


def compare(
    expected: Expected,
    places: Sequence[int],
    answers: Sequence[Answer],
    findings: Findings,
    size: int,
) -> None:
    """Note where a row's answer in a batch is not what it is alone.

    Args:
        expected: what the rows are answered alone.
        places: for each request of the batch, which of those rows it is.
        answers: what the requests were answered.
        findings: gets what is found.
        size: the batch size.
    """
    subject, tolerance = f"output {expected.tensor.name!r}", expected.tolerance
    got = [_values(answer, expected.tensor) for answer in answers]
    wanted = [expected.rows[place] for place in places]
    gaps = [
        0.0 if have is None or want is None else expected.gap(have, want)
        for have, want in zip(got, wanted, strict=True)
    ]
    at = int(np.argmax(gaps))
    if gaps[at] <= tolerance.near:
        return
    others = [
        _owner(expected, have, wanted)
        for have, gap in zip(got, gaps, strict=True)
        if gap > tolerance.far
    ]
    if others and None not in others:
        at = next(index for index, gap in enumerate(gaps) if gap > tolerance.far)
        message = (
            f"expected row {at} of the batch to get its own answer; got the answer of row "
            f"{others[0]}"
        )
        findings.add(rules.MIXED, subject, message, size)
    else:
        rule = rules.NEIGHBOURS if others else rules.DRIFT
        message = (
            f"expected row {at} of the batch to be answered as it is alone, "
            f"{_difference(wanted[at], got[at])}"
        )
        findings.add(rule, subject, message, size)


def changed(expected: Expected, first: Sequence[Answer], second: Sequence[Answer]) -> str:
    """Return in words how the answers of two runs of one batch differ; empty if they do not."""
    for index, pair in enumerate(zip(first, second, strict=True)):
        before, after = (_values(answer, expected.tensor) for answer in pair)
        if (
            before is not None
            and after is not None
            and expected.gap(before, after) > expected.tolerance.near
        ):
            return (
                f"expected row {index} to be answered alike in two runs of one batch, "
                f"{_difference(before, after)}"
            )
    return ""


def count_non_finite(tensor: TensorSpec, answers: Sequence[Mapping[str, Array] | None]) -> int:
    """Return how many rows of the output `tensor` hold NaN or infinity."""
    rows = [_values(answer, tensor) for answer in answers]
    return sum(
        row is not None and row.dtype.kind == "f" and not np.isfinite(row).all() for row in rows
    )


def _values(answer: Answer | None, tensor: TensorSpec) -> Array | None:
    if answer is None or tensor.name not in answer:
        return None
    array = answer[tensor.name]
    return to_float32(array) if tensor.datatype.name == "BF16" else array


def _owner(expected: Expected, have: Array | None, wanted: Sequence[Array | None]) -> int | None:
    """Return the row of the batch whose own answer `have` is, None if it is nobody's."""
    gaps = [
        (expected.gap(have, row), index)
        for index, row in enumerate(wanted)
        if have is not None and row is not None
    ]
    gap, index = min(gaps, default=(inf, 0))
    return index if gap <= expected.tolerance.near else None


def _apart(first: Array, second: Array) -> Array:
    """Return the distance of each element.

    Infinite where numbers cannot be compared or other values differ.
    """
    if first.dtype.kind != "f":
        return np.where(np.asarray(first != second, dtype=bool), inf, 0.0)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(first.astype("f8") - second.astype("f8")), nan=inf, posinf=inf)
    return np.where((first == second) | (np.isnan(first) & np.isnan(second)), 0.0, apart)


def _difference(want: Array | None, have: Array | None) -> str:
    """Return in words what was expected and what came, where they differ most."""
    assert want is not None
    assert have is not None
    if want.shape != have.shape:
        return f"of shape {shape_text(want.shape[1:])}; got {shape_text(have.shape[1:])}"
    at = np.unravel_index(int(np.argmax(_apart(want, have))), want.shape)
    return f"{_shown(want[at])} at {shape_text(tuple(map(int, at[1:])))}; got {_shown(have[at])}"


def _shown(value: object) -> str:
    return (
        f"{value:.6g}"
        if isinstance(value, float | np.floating)
        else repr(getattr(value, "item", lambda: value)())
    )
