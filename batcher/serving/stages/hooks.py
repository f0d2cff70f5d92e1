"""Requests of models with `preprocess` or `postprocess`.

Over the CPU pool to the scheduler, and over it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from twisted.internet.defer import Deferred, succeed

from batcher.batching.scheduler import BatchScheduler
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.spec import Array, ModelSpec, check_objects, check_outputs, nbytes_of
from batcher.core.waiters import Waiters
from batcher.errors import ModelContractError, Unavailable
from batcher.models.protocol import Hook, Loaded
from batcher.models.raised import allowed_from_model, model_error
from batcher.models.row_errors import non_finite_rows
from batcher.workers.pool import CpuPool

Result = TypeVar("Result")


class HookedRequests:
    """Sees to the requests of a model with hooks, and knows how many there are. Reactor thread."""

    def __init__(
        self,
        pool: CpuPool,
        scheduler: BatchScheduler,
        spec: ModelSpec,
        model: Loaded,
        finite_outputs: bool = False,
    ) -> None:
        """Run the hooks of `model`, specified by `spec`, on `pool`, before and after `scheduler`.

        With `finite_outputs`, a request fails if `postprocess` gives NaN or infinity for it.
        """
        self._pool = pool
        self._scheduler = scheduler
        self._spec = spec
        self._model = model
        self._finite_outputs = finite_outputs
        self._count = 0
        self._waiting = Waiters()

    def answer(self, request: InferenceRequest, deadline: float) -> Deferred[InferenceResponse]:
        """Answer `request` by `deadline`, in seconds. Raises QueueFull or Draining."""
        parameters = request.parameters._replace(deadline=deadline)
        request = InferenceRequest(
            request.model, request.version, request.inputs, request.rows, parameters
        )
        prepared = self._preprocessed(request, deadline)
        self._count += 1
        submitted = prepared.addCallback(self._scheduler.submit)
        answer: Deferred[InferenceResponse] = submitted.addCallback(self._postprocessed, deadline)
        answer.addBoth(self._ended)
        return answer

    def drain(self) -> Deferred[None]:
        """Fire when none is here any more.

        None on its way to the scheduler, none on its way back from it.
        """
        drained = self._waiting.wait()
        self._tell()
        return drained

    def _ended(self, result: Result) -> Result:
        self._count -= 1
        self._tell()
        return result

    def _tell(self) -> None:
        if self._count == 0:
            self._waiting.release()

    def _preprocessed(
        self, request: InferenceRequest, deadline: float
    ) -> Deferred[InferenceRequest]:
        hook = self._model.preprocess
        if hook is None:
            return succeed(request)

        def prepared() -> InferenceRequest:
            inputs = _run_hook(hook, request.inputs, f"model {request.model!r}: preprocess")
            rows = {len(array) if array.ndim else 0 for array in inputs.values()}
            if len(rows) != 1 or 0 in rows:
                got = f"arrays of {', '.join(map(str, sorted(rows)))} rows" if rows else "none"
                raise ModelContractError(
                    f"model {request.model!r}: preprocess: expected arrays of the same number of "
                    f"rows, at least 1; got {got}"
                )
            for name, array in inputs.items():
                if array.dtype.hasobject:
                    check_objects(array, f"model {request.model!r}: {name!r} from preprocess")
            return InferenceRequest(
                request.model, request.version, inputs, rows.pop(), request.parameters
            )

        return self._pool.run(nbytes_of(request.inputs), deadline, prepared)

    def _postprocessed(
        self, response: InferenceResponse, deadline: float
    ) -> InferenceResponse | Deferred[InferenceResponse]:
        hook = self._model.postprocess
        if hook is None:
            return response

        def finished() -> InferenceResponse:
            rows = len(next(iter(response.outputs.values())))
            outputs = _run_hook(hook, response.outputs, f"model {response.model!r}: postprocess")
            check_outputs(self._spec, outputs, rows)
            outputs = {tensor.name: outputs[tensor.name] for tensor in self._spec.outputs}
            if self._finite_outputs:
                _check_finite(outputs, self._spec)
            queue, compute, batch_size = response.queue, response.compute, response.batch_size
            return InferenceResponse(
                response.model, response.version, outputs, queue, compute, batch_size
            )

        try:
            return self._pool.run(nbytes_of(response.outputs), deadline, finished)
        except Unavailable as err:
            err.retry_after = 0  # the model has run
            raise


def _check_finite(outputs: Mapping[str, Array], spec: ModelSpec) -> None:
    errors = non_finite_rows(outputs, spec)
    if errors:
        raise errors[min(errors)]


def _run_hook(hook: Hook, values: Mapping[str, Array], place: str) -> dict[str, Array]:
    """Return the arrays that `hook` makes of `values`.

    A breach of its contract is told of with `place`.
    """
    try:
        given = hook(values)
        if not isinstance(given, Mapping):
            raise ModelContractError(
                f"{place}: expected a mapping of name to array; got {type(given).__name__}"
            )
        return {name: np.asarray(value) for name, value in given.items()}
    except (
        BaseException
    ) as err:  # a hook is the model's own code, and nothing but its request ends with it
        told = model_error(allowed_from_model(err))
        if told is err:
            raise
        raise told from err
