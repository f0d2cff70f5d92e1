"""The stage of models with `preprocess` or `postprocess`: both run on the CPU pool.

    request -> pool: preprocess -> go_on (queue, batch, model) -> pool: postprocess -> response

A `preprocess` may make rows of unequal lengths. Then the request goes on in pieces
(`uneven_rows.py`), and the pool joins their answers before `postprocess`.

Where the settings ask for that, what `preprocess` made of equal inputs is kept
(`caching/inputs.py`), and the hook does not run again.

A hook is code of the model's author. So hooks run neither on the loop, which every client would
wait for, nor on the inference thread, which the device would wait for. A hook that raises, or that
returns what its contract forbids, fails the one request that it was called for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.batching.failure_log import FailureLog
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.digests import Digests
from batcher.core.element_sizes import about_nbytes, sized
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceRequest, InferenceResponse, nbytes_of, with_outputs
from batcher.core.spec import Array, ModelSpec
from batcher.core.waiters import Waiters
from batcher.errors import ModelError, TooLarge, Unavailable
from batcher.models.hook_contract import run_postprocess, run_preprocess
from batcher.models.protocol import Arrays, Hook, LoadedModel, RemoteHook
from batcher.serving.caching.inputs import KeptInputs, Run
from batcher.serving.stages.alone import Alone
from batcher.serving.stages.stage import GoOn, Stage
from batcher.serving.stages.uneven_rows import Piece, PieceAnswers, PieceWait, pieces_of
from batcher.workers.pool import CpuPool

Result = TypeVar("Result")

_DIGESTS = Digests("inputs of preprocess")


class HookStage(Stage):
    """Runs the hooks of one loaded model, and knows how many requests they have. Reactor thread."""

    reads_client: ClassVar[bool] = True

    def __init__(
        self,
        pool: CpuPool,
        spec: ModelSpec,
        model: LoadedModel,
        deadline: Callable[[], float],
        metrics: ModelMetrics,
        clock: IReactorTime,
        settings: ModelSettings,
        computed: Callable[[], Deferred[None]],
        kept: KeptInputs | None = None,
    ) -> None:
        """Run the hooks of `model`, specified by `spec`, on `pool`; count and log what they raise.

        `deadline` returns that of a request without one of its own, in seconds, and `computed` what
        fires once no batch of the model runs; `kept` has what `preprocess` has made before.
        """
        self._pool, self._spec, self._model, self._deadline = pool, spec, model, deadline
        self._metrics, self._seconds = metrics, clock.seconds
        self._log = FailureLog("/".join(metrics.labels))
        self._finite_outputs, self._max_rows = settings.finite_outputs, settings.max_queue_rows
        self._alone = Alone(self._max_rows, clock, computed) if model.hands_over else None
        self._most_rows = _rows_of_batch(settings, model) if model.whole_requests else None
        self._kept = kept
        self._requests, self._drained = 0, Waiters()

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Answer `request` through both hooks by its deadline.

        Raises:
            QueueFull: the pool has no room for the request.
            Draining: the pool takes no more work.

        Reactor thread.
        """
        parameters = request.parameters
        deadline = parameters.deadline if parameters.deadline is not None else self._deadline()
        request = InferenceRequest(
            request.model,
            request.version,
            request.inputs,
            request.rows,
            parameters._replace(deadline=deadline),
        )
        start = partial(self._begin, request, deadline, go_on)
        answer = start() if self._alone is None else self._alone.run(start, deadline)
        self._requests += 1
        return answer.addBoth(self._ended)

    def _begin(
        self, request: InferenceRequest, deadline: float, go_on: GoOn
    ) -> Deferred[InferenceResponse]:
        client = request.parameters.client
        prepared = self._preprocessed(request, deadline, client)
        answer: Deferred[InferenceResponse] = prepared.addCallback(self._answered, go_on)
        return answer.addCallback(self._postprocessed, request.rows, deadline, client)

    def drain(self) -> Deferred[None]:
        """Fire when no request is on its way through a hook, or between the two."""
        drained = self._drained.wait()
        self._release_if_drained()
        return drained

    def close(self) -> None:
        """Let go of what is kept."""
        if self._kept is not None:
            self._kept.close()

    def _ended(self, result: Result) -> Result:
        self._requests -= 1
        self._release_if_drained()
        return result

    def _release_if_drained(self) -> None:
        if self._requests == 0:
            self._drained.release()

    def _answered(self, pieces: list[Piece], go_on: GoOn) -> Deferred[Any]:
        """Have `go_on` answer what `preprocess` has made.

        Fires with an InferenceResponse, or with PieceAnswers where there are several pieces. Raises
        as `infer` does, or TooLarge.
        """
        if self._most_rows is not None:
            _check_whole(pieces, self._most_rows)
        if len(pieces) == 1:
            return go_on(pieces[0].request)
        rows = sum([piece.request.rows for piece in pieces])
        if rows > self._max_rows:
            raise TooLarge(
                f"expected at most {self._max_rows} rows, what the queue can ever hold; got {rows}"
            )
        return PieceWait(pieces, go_on).answered

    def _preprocessed(
        self, request: InferenceRequest, deadline: float, client: str
    ) -> Deferred[list[Piece]]:
        hook = self._model.preprocess
        if hook is None and self._alone is None:
            return succeed(pieces_of(request))

        def run(nbytes: int, function: Callable[[], Result]) -> Deferred[Result]:
            return self._pool.run(nbytes, deadline, self._in_turn(function), client)

        if hook is None:  # a hook of the request before, whose client has left, may still run
            return run(0, lambda: pieces_of(request))
        make = partial(self._made, hook, request)
        nbytes, kept = nbytes_of(request.inputs), self._kept
        if kept is None or request.parameters.fresh or self._alone is not None:
            prepared = run(nbytes, lambda: pieces_of(_prepared(make(), request)))
        else:
            made = kept.made(nbytes, partial(_DIGESTS.of, request.inputs), make, run)
            prepared = made.addCallback(_pieces, request, run)
        return prepared.addErrback(self._failed, "preprocess")

    def _in_turn(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Return `function` as it runs on the pool, for the request that runs now."""
        return function if self._alone is None else self._alone.in_turn(function)

    def _made(self, hook: Hook | RemoteHook, request: InferenceRequest) -> Arrays:
        """Return what `preprocess` makes of one request. Pool thread."""
        if isinstance(hook, RemoteHook):
            return sized(hook.run(request.inputs, request.rows)[0])
        return sized(run_preprocess(hook, request.inputs, self._spec)[0])

    def _postprocessed(
        self, answer: InferenceResponse | PieceAnswers, rows: int, deadline: float, client: str
    ) -> InferenceResponse | Deferred[InferenceResponse]:
        hook = self._model.postprocess
        if hook is None and isinstance(answer, InferenceResponse):
            return answer

        def finished() -> InferenceResponse:
            response = answer.joined() if isinstance(answer, PieceAnswers) else answer
            return response if hook is None else self._finished(hook, response, rows)

        try:
            answers = answer.answers if isinstance(answer, PieceAnswers) else (answer,)
            nbytes = sum([about_nbytes(each.outputs) for each in answers])
            done = self._pool.run(nbytes, deadline, self._in_turn(finished), client)
            return done.addErrback(self._failed, "postprocess")
        except Unavailable as err:
            # The model has run: a client must not be asked to send the request again.
            err.retry_after = 0
            raise

    def _finished(
        self, hook: Hook | RemoteHook, response: InferenceResponse, rows: int
    ) -> InferenceResponse:
        """Return what `postprocess` makes of one request's answer. Pool thread."""
        return with_outputs(response, self._answer(hook, response.outputs, rows), response.origin)

    def _answer(self, hook: Hook | RemoteHook, outputs: Arrays, rows: int) -> dict[str, Array]:
        """Return what `postprocess` makes of one request's outputs. Pool thread."""
        if isinstance(hook, RemoteHook):
            return hook.run(outputs, rows)[0]
        return run_postprocess(hook, outputs, self._spec, rows, self._finite_outputs)

    def _failed(self, failure: Failure, hook: str) -> Failure:
        """Count and log what the model's own code has raised in `hook`."""
        error = failure.value
        if isinstance(error, ModelError):
            self._metrics.exceptions[hook] += 1
            self._log.write(f"{hook} failed for a request", error, self._seconds())
        return failure


def _rows_of_batch(settings: ModelSettings, model: LoadedModel) -> int:
    """Return the rows of the largest batch that `model` runs. Any thread."""
    fitted = max(model.timings, default=0) if model.overflow_rows else 0
    limits = settings.max_batch_size, model.max_rows, fitted
    return min([limit for limit in limits if limit])


def _check_whole(pieces: list[Piece], most: int) -> None:
    """Raise TooLarge where not all rows of a request fit into one batch, of `most` rows."""
    rows = sum([piece.request.rows for piece in pieces])
    if len(pieces) > 1 or rows > most:
        got = "rows of several lengths" if len(pieces) > 1 else f"{rows} rows"
        raise TooLarge(
            f"expected what fits into one batch, at most {most} rows of one length: predict has to "
            f"see all rows of a request, since it shares attributes with the hooks; got {got}"
        )


def _prepared(arrays: Arrays, request: InferenceRequest) -> InferenceRequest:
    """Return `request` with `arrays`, which `preprocess` has made, for inputs. Any thread."""
    rows = len(next(iter(arrays.values())))
    return InferenceRequest(request.model, request.version, arrays, rows, request.parameters)


def _pieces(
    arrays: Arrays, request: InferenceRequest, run: Run
) -> list[Piece] | Deferred[list[Piece]]:
    """Return `arrays`, which were made of `request`, as pieces; rows are cut on the pool."""
    prepared = _prepared(arrays, request)
    if any(map(is_ragged, arrays.values())):
        return run(about_nbytes(arrays), partial(pieces_of, prepared))
    return pieces_of(prepared)
