"""The stage that sends copies of requests to a version whose answers no client sees.

    request -> go_on -> answer -> client
                          |
                          +-- next turn of the loop: copy -> shadow -> both compared, counted

A copy is made once the client's answer is there, so no client waits for it, and it is of the bulk
class. Copies are bounded in number and bytes: a shadow that hangs, has ended or is slow fills that
bound, and further copies are dropped and counted. Whatever happens to a copy ends in a counter.

Refused: sending the copy beside the request. The two would compete for the device while the client
waits, and the answer of a client that leaves would be compared with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from batcher.batching.scheduler import CallSoon
from batcher.config.traffic import Shadow
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters, nbytes_of
from batcher.core.spec import Array
from batcher.errors import BatcherError
from batcher.serving.comparing import Comparison, compared, copied
from batcher.serving.model_version import ModelVersion
from batcher.serving.shadow_metrics import ShadowCounts
from batcher.serving.stages.stage import GoOn, Stage

Result = TypeVar("Result")

MAX_COPIES = 64
"""Copies that a shadow has at a time: a batch of them. More would only wait."""

MAX_COPY_BYTES = 64 << 20
"""Bytes of inputs and outputs that the copies of one shadow hold: a batch of pictures."""

MAX_LOOP_BYTES = 16 << 10
"""Bytes of outputs that are compared on the loop: some 50 µs. A pool compares more."""

MAX_LOOP_COPY_BYTES = 1 << 20
"""Bytes of outputs that are copied on the loop: some 100 µs. A pool copies more."""


class Copies:
    """The copies that a shadow has at the moment; they outlive the stages. Reactor thread.

    Attributes:
        count: how many.
        nbytes: bytes of their inputs, and of the answers that they are compared with.
    """

    def __init__(self) -> None:
        """Begin without copies."""
        self.count = 0
        self.nbytes = 0


class ShadowStage(Stage):
    """Copies requests to one version. Reactor thread."""

    def __init__(
        self,
        settings: Shadow,
        find: Callable[[], ModelVersion | None],
        copies: Copies,
        counts: ShadowCounts,
        seconds: Callable[[], float],
        call_soon: CallSoon,
        random: Random,
    ) -> None:
        """Send copies to what `find` returns, as `settings` say; None drops them.

        `copies` are those that are under way, and `counts` has the numbers. A copy is sent by
        `call_soon`, and `random` chooses which requests are copied.
        """
        self._settings = settings
        self._find = find
        self._copies = copies
        self._counts = counts
        self._seconds = seconds
        self._call_soon = call_soon
        self._random = random

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Have `go_on` answer; raises as it does. Reactor thread."""
        began = self._seconds()
        answer = go_on(request)
        if self._random.random() < self._settings.sample:
            answer.addCallback(self._answered, request, began)
        return answer

    def _answered(
        self, response: InferenceResponse, request: InferenceRequest, began: float
    ) -> InferenceResponse:
        version = self._find()
        # Of a version that is compared with itself nothing is learnt.
        if version is None or version.spec.version != response.version:
            self._call_soon(partial(self._send, request, response, self._seconds() - began))
        return response

    def _send(
        self, request: InferenceRequest, response: InferenceResponse, original_s: float
    ) -> None:
        """Send a copy of `request`, whose `response` took `original_s`, or count why not."""
        copies, version = self._copies, self._find()
        if version is None or not version.accepts:
            self._counts.outcomes["not_ready"] += 1
            return
        nbytes = nbytes_of(request.inputs) + nbytes_of(response.outputs)
        if copies.count >= MAX_COPIES or copies.nbytes + nbytes > MAX_COPY_BYTES:
            self._counts.outcomes["dropped"] += 1
            return
        copies.count += 1
        copies.nbytes += nbytes
        parameters = Parameters(version.deadline(), version.max_level, None, "shadow", "", True)
        copy = InferenceRequest(
            request.model, version.spec.version, request.inputs, request.rows, parameters
        )
        sent = _copied(response.outputs, nbytes, version, parameters)
        sent.addCallback(self._ask, copy, version, original_s)
        sent.addCallbacks(self._counts.count, self._failed).addBoth(self._ended, nbytes)

    def _ask(
        self,
        outputs: Mapping[str, Array],
        copy: InferenceRequest,
        version: ModelVersion,
        original_s: float,
    ) -> Deferred[Comparison]:
        """Have the shadow answer `copy`, and compare that with `outputs`."""
        began = self._seconds()
        sent: Deferred[Any] = maybeDeferred(version.answer, copy)
        sent.addCallback(self._timed, original_s, began)
        return sent.addCallback(self._compare, outputs, version, copy.parameters)

    def _timed(
        self, response: InferenceResponse, original_s: float, began: float
    ) -> InferenceResponse:
        self._counts.original.observe(original_s)
        self._counts.shadow.observe(self._seconds() - began)
        return response

    def _compare(
        self,
        response: InferenceResponse,
        outputs: Mapping[str, Array],
        version: ModelVersion,
        parameters: Parameters,
    ) -> Comparison | Deferred[Comparison]:
        compare = partial(compared, outputs, response.outputs, self._settings.tolerance)
        nbytes = nbytes_of(outputs)
        if nbytes <= MAX_LOOP_BYTES and not any(is_ragged(each) for each in outputs.values()):
            return compare()
        return version.run_on_pool(nbytes, compare, parameters._replace(deadline=None))

    def _failed(self, failure: Failure) -> None:
        is_ours = failure.check(BatcherError, CancelledError)
        self._counts.outcomes["failed" if is_ours else "not_compared"] += 1

    def _ended(self, result: Result, nbytes: int) -> Result:
        self._copies.count -= 1
        self._copies.nbytes -= nbytes
        return result


def _copied(
    outputs: Mapping[str, Array], nbytes: int, version: ModelVersion, parameters: Parameters
) -> Deferred[Any]:
    """Return a copy of `outputs`, made on the pool where there are many bytes.

    A view of the whole batch's outputs would be held until the shadow has answered.
    """
    copy = partial(copied, outputs)
    if nbytes <= MAX_LOOP_COPY_BYTES:
        return maybeDeferred(copy)
    return maybeDeferred(version.run_on_pool, nbytes, copy, parameters._replace(deadline=None))
