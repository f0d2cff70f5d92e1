"""Running a loaded model at several batch sizes, and what that shows.

Every row is first run alone, and that answer is what it must get in any batch. Each batch runs
twice, and each row alone once more at the end, so that a model whose answers change by themselves
is not blamed for mixing rows. The sizes are those at which models break: 1, where squeeze() takes
an axis too many, small primes, where a guessed reshape does not fit, and the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from batcher.app.checking import rules
from batcher.app.checking.comparing import (
    Expected,
    changed,
    compare,
    count_non_finite,
    expected_rows,
)
from batcher.app.checking.contract import Findings, Timing
from batcher.app.checking.runs import Answer, Run, Runner
from batcher.app.checking.samples import Row, Rows
from batcher.models.protocol import Arrays, Model, Progress

SIZES = (1, 2, 3, 7)
"""Batch sizes besides the largest."""

SEVERAL = 3
"""Rows of the request that hooks are tried with besides those of one row."""

MUCH = 1.5
"""A row in the largest batch that costs so many times what it costs alone is told of: less is
within what timing can tell.
"""


class _Tried(NamedTuple):
    """A request that was run alone, prepared, and its answer if there was one."""

    request: Arrays
    answer: Answer | None


class BatchCheck:
    """Checks one loaded model. Inference thread."""

    def __init__(
        self, model: Model, findings: Findings, progress: Progress, seconds: Callable[[], float]
    ) -> None:
        """Run `model` by the clock `seconds`.

        Note what is found in `findings`, tell `progress` what is being done.
        """
        self._outputs = model.spec.outputs
        self._runner = Runner(model, seconds)
        self._findings = findings
        self._progress = progress
        self._ran: list[
            tuple[int, list[int], tuple[Answer, ...]]
        ] = []  # size, which row each request is, answers

    def run(self, rows: Rows, max_batch_size: int) -> tuple[Timing, ...]:
        """Run rows alone and in batches; return how long the batches took that did not fail."""
        self._progress("checking rows alone")
        tried = self._alone(rows)
        if not tried:
            return ()
        expected = [
            expected_rows(tensor, [alone.answer for alone in tried]) for tensor in self._outputs
        ]
        self._check_values(expected, [alone.answer for alone in tried])
        if self._runner.has_hooks:
            self._check_request(rows.own, len(next(iter(tried[0].request.values()))))
        timings = []
        for size in sorted({size for size in SIZES if size < max_batch_size} | {max_batch_size}):
            self._progress(f"checking, batch size {size}")
            run = self._batch([alone.request for alone in tried], expected, size)
            if run.answers:
                timings.append(Timing(size, run.seconds))
        for alone in tried:
            again = self._runner.run([alone.request], self._findings).answers
            if alone.answer is not None and again:
                self._check_changes(expected, [alone.answer], again, 1)
        if not self._findings.has(rules.CHANGES):
            self._compare(expected)
        self._check_timings(timings)
        return tuple(timings)

    def _alone(self, rows: Rows) -> list[_Tried]:
        """Run each row alone; return those that may share a batch with the first."""
        own = [self._try(row, self._findings) for row in rows.own]
        answered = any(alone is not None and alone.answer is not None for alone in own)
        made = [self._try_made(row, answered) for row in rows.made]
        if refused := made.count(None):
            message = (
                f"expected answers to {len(made)} rows made from the sample; got none to {refused} "
                "of them"
            )
            self._findings.add(rules.REFUSED, "sample", message)
        found = [alone for alone in (*own, *made) if alone is not None]
        return [alone for alone in found if _shapes(alone.request) == _shapes(found[0].request)]

    def _try(self, row: Row, findings: Findings) -> _Tried | None:
        request = self._runner.prepare(row, findings)
        if request is None:
            return None
        return _Tried(request, next(iter(self._runner.run([request], findings).answers), None))

    def _try_made(self, row: Row, may_be_refused: bool) -> _Tried | None:
        """Run a row that is made up; if it may be refused, None if it is."""
        findings = Findings()
        tried = self._try(row, findings)
        return (
            None
            if may_be_refused and findings.has(rules.RAISES, rules.PREPROCESS, rules.POSTPROCESS)
            else tried
        )

    def _batch(self, requests: Sequence[Arrays], expected: Sequence[Expected], size: int) -> Run:
        """Run one batch twice, remember its answers, and return the faster run."""
        rows_each = len(next(iter(requests[0].values())))  # preprocess may make several of one
        places = [(size + index) % len(requests) for index in range(max(1, size // rows_each))]
        batch = [requests[place] for place in places]
        first, second = (
            self._runner.run(batch, self._findings),
            self._runner.run(batch, self._findings),
        )
        if not (first.answers and second.answers):
            return Run()
        self._check_changes(expected, first.answers, second.answers, size)
        self._ran.append((size, places, first.answers))
        return min(first, second, key=lambda run: run.seconds)

    def _check_changes(
        self,
        expected: Sequence[Expected],
        first: Sequence[Answer],
        second: Sequence[Answer],
        size: int,
    ) -> None:
        for output in expected:
            if difference := changed(output, first, second):
                self._findings.add(
                    rules.CHANGES, f"output {output.tensor.name!r}", difference, size
                )

    def _compare(self, expected: Sequence[Expected]) -> None:
        for size, places, answers in self._ran:
            for output in expected:
                compare(output, places, answers, self._findings, size)

    def _check_values(self, expected: Sequence[Expected], alone: Sequence[Answer | None]) -> None:
        for output in expected:
            if bad := count_non_finite(output.tensor, alone):
                message = (
                    f"expected finite numbers; got NaN or infinity in {bad} of {len(alone)} rows"
                )
                self._findings.add(rules.NON_FINITE, f"output {output.tensor.name!r}", message)
        if any(alone) and all(output.all_equal() for output in expected):
            message = f"expected answers that differ; got the same for all of {len(alone)} rows"
            self._findings.add(rules.BLIND, "outputs", message)

    def _check_request(self, own: Sequence[Row], rows_each: int) -> None:
        """Give the hooks a request of several rows."""
        rows = [own[index % len(own)] for index in range(SEVERAL)]
        alike = [row if _shapes(row) == _shapes(rows[0]) else rows[0] for row in rows]
        joined = {name: np.concatenate([row[name] for row in alike]) for name in rows[0]}
        for array in joined.values():
            array.flags.writeable = False
        request = self._runner.prepare(joined, self._findings)
        if request is None:
            return
        count = len(next(iter(request.values())))
        if count != SEVERAL * rows_each:
            message = (
                f"expected {SEVERAL * rows_each} rows of a request of {SEVERAL}, as {rows_each} of "
                f"one row; got {count}"
            )
            self._findings.add(rules.PREPROCESS, "preprocess", message)
        self._runner.run([request], self._findings)

    def _check_timings(self, timings: Sequence[Timing]) -> None:
        if len(timings) < 2:
            return
        one, many = (timing.seconds / timing.rows for timing in (timings[0], timings[-1]))
        if many > MUCH * one:
            message = (
                f"expected a row to cost at most the {one * 1e3:.3g} ms that it costs alone; got "
                f"{many * 1e3:.3g} ms"
            )
            self._findings.add(rules.SLOWER, "predict", message, timings[-1].rows)


def _shapes(inputs: Arrays) -> dict[str, tuple[object, ...]]:
    return {name: (array.dtype, *array.shape[1:]) for name, array in inputs.items()}
