"""Compare answers: of a row alone and the same row in a batch, and of two runs of one batch.

Kernels round differently at different batch sizes. So floats are compared by a relative distance,
whose unit is the largest finite number in any answer of that output:

    gap = max(|first - second|) / scale

Example: an output whose largest number is 50 answers 10.0 for a row alone and 10.2 in a batch. The
gap is 0.2 / 50 = 0.004. For float32 a gap up to 0.001 counts as equal, up to 0.02 as drift (a
warning), and above that as another answer (a breach); 0.004 is drift.

Integers, booleans and texts must be equal: their gap is 0 or infinite. NaN equals NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from batcher.app.checking import rules
from batcher.app.checking.contract import Findings, Rule
from batcher.app.checking.runs import Answer
from batcher.codecs.formats.bfloat16 import to_float32
from batcher.core.spec import Array, TensorSpec, shape_text


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The gaps at which two answers begin to differ; a gap has no unit (see the module's formula).

    Attributes:
        near: the largest gap of answers that count as equal.
        far: the largest gap of answers that count as the same, rounded differently.
    """

    near: float
    far: float


FULL_PRECISION = Tolerance(1e-3, 2e-2)
"""For FP32 and FP64: rounding stays below 1e-3 over many layers, and near 1e-3 in TF32.

A row that depends on its neighbours in the batch rarely changes by less than 2e-2.
"""

HALF_PRECISION = Tolerance(2e-2, 1e-1)
"""For FP16 and BF16, whose numbers have 11 and 8 significant bits."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The answers in one output that each row gets when it runs alone.

    Attributes:
        tensor: the output.
        rows: the answer of each row, as numbers or texts; None where a row got no answer.
        scale: the largest absolute value of a finite number among the answers, the unit of a gap;
            1 if there is none.
    """

    tensor: TensorSpec
    rows: tuple[Array | None, ...]
    scale: float

    @property
    def tolerance(self) -> Tolerance:
        """The gaps at which answers in this output begin to differ."""
        is_half = self.tensor.datatype.name in ("FP16", "BF16")
        return HALF_PRECISION if is_half else FULL_PRECISION

    def gap(self, first: Array, second: Array) -> float:
        """Return the gap between two answers; infinite if their shapes differ."""
        if first.shape != second.shape:
            return inf
        return float(_apart(first, second).max(initial=0.0)) / self.scale

    def all_equal(self) -> bool:
        """Return whether every row gets the same answer; then a mix-up of rows cannot be seen."""
        rows = [row for row in self.rows if row is not None]
        return all(self.gap(row, rows[0]) <= self.tolerance.near for row in rows[1:])


def expected_rows(tensor: TensorSpec, answers: Sequence[Answer | None]) -> Expected:
    """Return the answers that rows, each run alone, got in the output `tensor`."""
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
    """Note where a row's answer in a batch is not the answer that the row gets alone.

    Args:
        expected: the answers of the rows, each run alone.
        places: for each request of the batch, the index of its row in `expected`.
        answers: the answers of the requests.
        findings: receives at most one finding.
        size: the rows of the batch.
    """
    got = [_values(answer, expected.tensor) for answer in answers]
    alone = [expected.rows[place] for place in places]
    if breach := _breach(expected, got, alone):
        rule, message = breach
        findings.add(rule, f"output {expected.tensor.name!r}", message, size)


def changed(expected: Expected, first: Sequence[Answer], second: Sequence[Answer]) -> str:
    """Return in words how the answers of two runs of one batch differ; empty if they are alike."""
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


def _breach(
    expected: Expected, got: Sequence[Array | None], alone: Sequence[Array | None]
) -> tuple[Rule, str] | None:
    """Return the rule that the answers `got` in a batch break, and how; None if they are right."""
    # A row without one of the two answers has a finding of its own already.
    gaps = [
        0.0 if have is None or want is None else expected.gap(have, want)
        for have, want in zip(got, alone, strict=True)
    ]
    at = int(np.argmax(gaps))
    if gaps[at] <= expected.tolerance.near:
        return None
    wrong = [index for index, gap in enumerate(gaps) if gap > expected.tolerance.far]
    owners = [_owner(expected, got[index], alone) for index in wrong]
    if owners and None not in owners:
        return rules.MIXED, (
            f"expected row {wrong[0]} of the batch to get its own answer; got the answer of row "
            f"{owners[0]}"
        )
    return rules.NEIGHBOURS if owners else rules.DRIFT, (
        f"expected row {at} of the batch to be answered as it is alone, "
        f"{_difference(alone[at], got[at])}"
    )


def _owner(expected: Expected, have: Array | None, alone: Sequence[Array | None]) -> int | None:
    """Return the row of the batch whose own answer `have` is; None if it is the answer of none."""
    gaps = [
        (expected.gap(have, row), index)
        for index, row in enumerate(alone)
        if have is not None and row is not None
    ]
    gap, index = min(gaps, default=(inf, 0))
    return index if gap <= expected.tolerance.near else None


def _apart(first: Array, second: Array) -> Array:
    """Return the distance of each pair of elements.

    Infinite between a number and NaN, and between values of other kinds that differ.
    """
    if first.dtype.kind != "f":
        return np.where(np.asarray(first != second, dtype=bool), inf, 0.0)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(first.astype("f8") - second.astype("f8")), nan=inf, posinf=inf)
    return np.where((first == second) | (np.isnan(first) & np.isnan(second)), 0.0, apart)


def _difference(want: Array | None, have: Array | None) -> str:
    """Return in words both answers at the element where they differ most."""
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
