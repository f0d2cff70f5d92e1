"""Whether models really answer: one row is inferred by each model that should serve.

That is the first row of the model's sample, or a blank row where the model has no sample. A model
that refuses the blank row, or whose `preprocess` makes no rows of it, has run and is no broken one.

The row goes the way of every request (stages, queue, worker). So a deep check finds failures that
the state of a model does not show: a model that hangs, a device that is lost. A client that asks
while a check runs gets the result of that check. So a flood of requests for a check costs each
model at most one row at a time.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.python.failure import Failure

from batcher.core.request import InferenceResponse, Parameters
from batcher.core.waiters import Waiters
from batcher.errors import InvalidInput, NoRowsPrepared
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.failures import describe_failure
from batcher.models.blank_rows import SENTENCES, blank_rows, unsized_inputs
from batcher.serving.model_version import ModelState, ModelVersion

CHECK_TIMEOUT_S = 5.0
"""Seconds that a model has for its row; its own default timeout counts if that is shorter.

Platforms often ask every 10 s, and still wait 5 s for an answer.
"""


class CheckResult:
    """The result of a deep check. Each attribute has one entry a model, by the model's title.

    Attributes:
        seconds: seconds that the model took to answer.
        failed: why the model did not answer.
        skipped: why the model got no row.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}


class DeepCheck:
    """Checks the models of an engine that are required and ready, one check at a time.

    Reactor thread.
    """

    def __init__(self, engine: Engine, disclosure: Disclosure) -> None:
        """Check the models of `engine`; `disclosure` says how much of the reasons clients read."""
        self._engine = engine
        self._disclosure = disclosure
        self._waiters = Waiters()
        self._running: CheckResult | None = None

    def run(self) -> Deferred[CheckResult]:
        """Fire with the result of the check that runs now; begin a check if none runs.

        Cancelling the Deferred stops no check: others may wait for the same one.
        """
        waiting = self._waiters.wait()
        begins = self._running is None
        result = self._running = self._running or CheckResult()
        if begins:
            rows = [self._send_row(version, result) for version in self._engine if _is_due(version)]
            DeferredList(rows).addBoth(self._ended)
        return waiting.addCallback(lambda _: result)

    def _ended(self, _: object) -> None:
        self._running = None
        self._waiters.release()

    def _send_row(self, version: ModelVersion, result: CheckResult) -> Deferred[None]:
        """Send one row to `version`; fires when `result` has an entry for the model.

        The row has the highest priority and is charged to no quota.
        """
        engine, spec, title = self._engine, version.spec, version.title
        began = engine.seconds()

        def answered(_: InferenceResponse) -> None:
            result.seconds[title] = engine.seconds() - began

        def failed(failure: Failure) -> None:
            assert failure.value is not None
            if version.sample is None and (refusal := _refusal(failure.value)):
                result.skipped[title] = refusal
            else:
                result.failed[title] = self._described(failure.value)

        if version.sample is None and (reason := unsized_inputs(spec)):
            result.skipped[title] = reason
            return succeed(None)
        # Whatever this raises is the result of this model alone: a blank row may not fit into the
        # memory, for example.
        return maybeDeferred(self._infer_row, version).addCallbacks(answered, failed)

    def _described(self, error: BaseException) -> str:
        """Return `error` in words for the clients that share a check, and share its references."""
        _, code, text, _ = describe_failure(error, self._disclosure, None)
        return f"{code}: {text}"

    def _infer_row(self, version: ModelVersion) -> Deferred[InferenceResponse]:
        """Answer one row by `version`."""
        spec, deadline = version.spec, version.deadline(min(version.timeout, CHECK_TIMEOUT_S))
        parameters = Parameters(deadline=deadline, priority=1, key=None, fresh=True)
        sample = version.sample
        # Many models take no empty text.
        row = blank_rows(spec, 1, SENTENCES) if sample is None else dict(sample)
        return self._engine.infer(spec.name, row, spec.version, parameters)


def _refusal(error: BaseException) -> str:
    """Return why a model that works may answer a blank row with `error`; empty if it may not.

    A blank row is made up, so a model may refuse it, or make nothing of it. The model has run then.
    """
    if isinstance(error, InvalidInput):
        return f"it refuses blank rows: {error}"
    if isinstance(error, NoRowsPrepared):
        return "no sample, and preprocess makes no rows of blank ones"
    return ""


def _is_due(version: ModelVersion) -> bool:
    return version.required and version.state is ModelState.READY
