"""The plan of a check: which batches run on a loaded model, and what their answers show.

    1. each row alone             the answer that the row must get in any batch
    2. a request of several rows  hooks must take it (only for models with hooks)
    3. each batch size, twice     the answers of step 1 again, and how long a batch takes
    4. each row alone again       the answers of step 1 again

Answers of a model may change by themselves, for example by dropout in training mode. Such a model
must not be blamed for mixing rows. So everything runs twice, and rows are compared with their
batches (`_compare`) only if no answer changed between two equal runs.

The batch sizes are those at which models break: 1, where squeeze() removes an axis too many, small
primes, where a guessed reshape does not fit, and the largest size.
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
from batcher.models.hook_contract import common_rows
from batcher.models.protocol import Arrays, Model, Progress

BATCH_SIZES = (1, 2, 3, 7)
"""Rows of the batches that run besides the largest one."""

ROWS_OF_REQUEST = 3
"""Rows of the request that hooks are tried with besides requests of one row."""

MAX_ROW_COST_RATIO = 1.5
"""The time of a row in the largest batch, divided by its time alone, above which a note says so.

Smaller differences may be noise of the clock.
"""


class _Single(NamedTuple):
    """A row that ran alone.

    Attributes:
        request: the row, prepared by `preprocess`.
        answer: the outputs of the row; None if the row or its run failed.
        failed: why the row failed by itself; empty if it did not.
    """

    request: Arrays
    answer: Answer | None
    failed: str = ""


class _BatchRun(NamedTuple):
    """A batch that ran.

    Attributes:
        size: the rows of the batch.
        places: for each request of the batch, the index of its row among those that ran alone.
        answers: one for each request.
    """

    size: int
    places: list[int]
    answers: tuple[Answer, ...]


class BatchCheck:
    """Checks one loaded model. Inference thread."""

    def __init__(
        self, model: Model, findings: Findings, progress: Progress, seconds: Callable[[], float]
    ) -> None:
        """Run `model`, note breaches in `findings`, and call `progress` before each step.

        `seconds` is a clock.
        """
        self._outputs = model.spec.outputs
        self._runner = Runner(model, seconds)
        self._findings = findings
        self._progress = progress
        self._ran: list[_BatchRun] = []

    def run(self, rows: Rows, max_batch_size: int) -> tuple[Timing, ...]:
        """Run `rows` alone and in batches of at most `max_batch_size` rows.

        Returns:
            The times of the batches that did not fail, by ascending size.
        """
        self._progress("checking rows alone")
        singles = self._alone(rows)
        if not singles:
            return ()
        answers = [single.answer for single in singles]
        expected = [expected_rows(tensor, answers) for tensor in self._outputs]
        self._check_values(expected, answers)
        if self._runner.has_hooks:
            self._check_request(rows.own)
        timings = self._batches(singles, expected, max_batch_size)
        self._repeat(singles, expected)
        if not timings and not any(answers):
            self._findings.replace(rules.RAISES, rules.RAISES_ALWAYS)
        if not self._findings.has(rules.CHANGES):
            self._compare(expected)
        self._check_timings(timings)
        return tuple(timings)

    def _batches(
        self, singles: Sequence[_Single], expected: Sequence[Expected], max_batch_size: int
    ) -> list[Timing]:
        """Run a batch of each size; return the times of those that did not fail."""
        requests, timings = [single.request for single in singles], []
        sizes = {size for size in BATCH_SIZES if size < max_batch_size} | {max_batch_size}
        for size in sorted(sizes):
            self._progress(f"checking, batch size {size}")
            run = self._run_batch(requests, expected, size)
            if run.answers:
                timings.append(Timing(size, run.seconds))
        return timings

    def _repeat(self, singles: Sequence[_Single], expected: Sequence[Expected]) -> None:
        """Run each row alone once more, and note answers that changed."""
        for single in singles:
            again = self._runner.run([single.request], self._findings).answers
            if single.answer is not None and again:
                self._check_changes(expected, [single.answer], again, 1)

    def _alone(self, rows: Rows) -> list[_Single]:
        """Run each row alone; return the rows that may share a batch with the first of them."""
        own = [self._try(row, self._findings) for row in rows.own]
        failed = [single.failed for single in own if single is not None and single.failed]
        if failed:
            rule = rules.FAILED if len(failed) == len(own) else rules.FAILED_ROWS
            message = f"expected answers to {len(own)} rows; {len(failed)} failed: {failed[0]}"
            self._findings.add(rule, "rows", message)
            if rule is rules.FAILED:
                return []
        answered = any(single is not None and single.answer is not None for single in own)
        made = [self._try_made(row, answered) for row in rows.made]
        if refused := made.count(None):
            message = (
                f"expected answers to {len(made)} rows made from the sample; got none to {refused} "
                "of them"
            )
            self._findings.add(rules.REFUSED, "sample", message)
        singles = [single for single in (*own, *made) if single is not None]
        return [one for one in singles if _shapes(one.request) == _shapes(singles[0].request)]

    def _try(self, row: Row, findings: Findings) -> _Single | None:
        """Run `row` alone; None if `preprocess` fails on the row."""
        request = self._runner.prepare(row, findings)
        if request is None:
            return None
        run = self._runner.run([request], findings)
        if run.failed:
            return _Single(request, None, run.failed[0])
        return _Single(request, next(iter(run.answers), None))

    def _try_made(self, row: Row, may_be_refused: bool) -> _Single | None:
        """Run a variant of a row alone; None if the model refuses the row and may do so."""
        # Findings of its own: a breach that the variant shows will show in the batches again.
        findings = Findings()
        single = self._try(row, findings)
        refused = findings.has(rules.RAISES, rules.PREPROCESS, rules.POSTPROCESS)
        return None if may_be_refused and refused else single

    def _run_batch(
        self, requests: Sequence[Arrays], expected: Sequence[Expected], size: int
    ) -> Run:
        """Run one batch twice, remember its answers, and return the faster run."""
        # `preprocess` may make several rows of one.
        rows_each = common_rows(requests[0])
        # Each size starts at another row, so that rows meet other neighbours in each batch.
        places = [(size + index) % len(requests) for index in range(max(1, size // rows_each))]
        batch = [requests[place] for place in places]
        first = self._runner.run(batch, self._findings)
        second = self._runner.run(batch, self._findings)
        if not (first.answers and second.answers):
            return Run()
        self._check_changes(expected, first.answers, second.answers, size)
        self._ran.append(_BatchRun(size, places, first.answers))
        return min(first, second, key=lambda run: run.seconds)

    def _check_changes(
        self,
        expected: Sequence[Expected],
        first: Sequence[Answer],
        second: Sequence[Answer],
        size: int,
    ) -> None:
        """Note answers that differ between two runs of one batch."""
        for output in expected:
            if difference := changed(output, first, second):
                self._findings.add(
                    rules.CHANGES, f"output {output.tensor.name!r}", difference, size
                )

    def _compare(self, expected: Sequence[Expected]) -> None:
        """Note where a row got another answer in a batch than alone."""
        for batch in self._ran:
            for output in expected:
                compare(output, batch.places, batch.answers, self._findings, batch.size)

    def _check_values(self, expected: Sequence[Expected], alone: Sequence[Answer | None]) -> None:
        """Note numbers that are not finite, and answers that are the same for all rows."""
        for output in expected:
            if bad := count_non_finite(output.tensor, alone):
                message = (
                    f"expected finite numbers; got NaN or infinity in {bad} of {len(alone)} rows"
                )
                self._findings.add(rules.NON_FINITE, f"output {output.tensor.name!r}", message)
        if any(alone) and all(output.all_equal() for output in expected):
            message = f"expected answers that differ; got the same for all of {len(alone)} rows"
            self._findings.add(rules.BLIND, "outputs", message)

    def _check_request(self, own: Sequence[Row]) -> None:
        """Run a request of several rows through the hooks."""
        rows = [own[index % len(own)] for index in range(ROWS_OF_REQUEST)]
        alike = [row if _shapes(row) == _shapes(rows[0]) else rows[0] for row in rows]
        joined = {name: np.concatenate([row[name] for row in alike]) for name in rows[0]}
        for array in joined.values():
            array.flags.writeable = False
        request = self._runner.prepare(joined, self._findings)
        if request is None:
            return
        alone = [self._runner.prepare(row, self._findings) for row in alike]
        count, expected = common_rows(request), sum(common_rows(row or {}) for row in alone)
        if count != expected:
            message = (
                f"expected {expected} rows of a request of {ROWS_OF_REQUEST}, as many as of its "
                f"rows one by one; got {count}"
            )
            self._findings.add(rules.PREPROCESS, "preprocess", message)
        self._runner.run([request], self._findings, ROWS_OF_REQUEST)

    def _check_timings(self, timings: Sequence[Timing]) -> None:
        """Note if a row costs more in the largest batch than alone."""
        if len(timings) < 2:
            return
        one, many = (timing.seconds / timing.rows for timing in (timings[0], timings[-1]))
        if many > MAX_ROW_COST_RATIO * one:
            message = (
                f"expected a row to cost at most the {one * 1e3:.3g} ms that it costs alone; got "
                f"{many * 1e3:.3g} ms"
            )
            self._findings.add(rules.SLOWER, "predict", message, timings[-1].rows)


def _shapes(inputs: Arrays) -> dict[str, tuple[object, ...]]:
    return {name: (array.dtype, *array.shape[1:]) for name, array in inputs.items()}
