"""Whatever answers requests under a name: a version of a model, or several that share requests.

A servable has a specification, takes requests that fit it, and sends each through its stages. What
stands behind the stages is the matter of the subclass: a model version has a queue there. So every
front asks one and the same method, `Servable.infer`, and knows nothing of queues, stages or quotas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred, succeed

from batcher.core.decoding_limits import NO_LIMITS
from batcher.core.element_sizes import sized
from batcher.core.error_text import brief
from batcher.core.left_out import with_defaults
from batcher.core.request import (
    NO_PARAMETERS,
    InferenceRequest,
    InferenceResponse,
    Parameters,
    checked_parameters,
)
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import Unavailable
from batcher.serving.caching.inputs import KeptInputs
from batcher.serving.stages.stage import GoOn, Stage, chain_of
from batcher.workers.pools import Pools

Result = TypeVar("Result")


@mypyc_attr(allow_interpreted_subclasses=True)
class Servable(ABC):
    """Answers requests of one specification. Reactor thread.

    Attributes:
        spec: names, dtypes and shapes of inputs and outputs.
        max_level: the lowest priority that a request may name, which is that of bulk.
        timeout: seconds that a request has which names no deadline.
        reads_key: whether a stage looks at the API key of requests.
        reads_client: whether a stage looks at the client of requests.
        reads_freshness: whether a stage asks if the model is to run in any case.
        reads_once: whether a stage asks by which text a client repeats a request.
        picks_version: whether a stage chooses the version that answers by the route of a request.
        limits: most rows and bytes that an input of one request may have.
        decoded: what is kept of inputs that were decoded; None where nothing is.

    Args:
        spec: what requests must fit.
        max_level: the lowest priority that a request may name.
        timeout: seconds that a request has which names no deadline.
        pools: run what is too slow for the loop.
        seconds: the clock.
    """

    def __init__(
        self,
        spec: ModelSpec,
        max_level: int,
        timeout: float,
        pools: Pools,
        seconds: Callable[[], float],
    ) -> None:
        """Begin without stages."""
        self.spec = spec
        self.max_level = max_level
        self.timeout = timeout
        self.reads_key = False
        self.reads_client = False
        self.reads_freshness = False
        self.reads_once = False
        self.picks_version = False
        self.limits = NO_LIMITS
        self.decoded: KeptInputs | None = None
        self._pools = pools
        self._seconds = seconds
        self._name_stages: tuple[Stage, ...] = ()
        self._version_stages: tuple[Stage, ...] = ()
        self._chain: GoOn | None = None
        self._version_chain: GoOn | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.spec.name, self.spec.version

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.spec.name}/{self.spec.version}"

    def infer(
        self,
        inputs: Mapping[str, Array],
        parameters: Parameters = NO_PARAMETERS,
        exact: bool = False,
    ) -> Deferred[InferenceResponse]:
        """Answer one request of 1 or more rows; the Deferred fails as `ModelServer.infer` says.

        Args:
            inputs: name to array of shape (rows, *row shape), in the dtypes of the specification.
            parameters: deadline, priority, key and client.
            exact: whether `inputs` hold all that the specification names, as it says: no check.

        Raises:
            BatcherError: the request is refused at once.
        """
        spec = self.spec
        rows = len(inputs[spec.inputs[0].name]) if exact else check_inputs(spec, inputs)
        if not exact and len(inputs) < len(spec.inputs):
            inputs = with_defaults(spec, inputs, rows)
        if parameters is not NO_PARAMETERS:
            parameters = checked_parameters(parameters, self.max_level)
        return self.infer_fitting(inputs, rows, parameters)

    def infer_fitting(
        self, inputs: Mapping[str, Array], rows: int, parameters: Parameters
    ) -> Deferred[InferenceResponse]:
        """Answer one request of `rows` rows that fits in every way; fails and raises as `infer`.

        Its inputs and its parameters are not looked at.
        """
        spec = self.spec
        request = InferenceRequest(spec.name, spec.version, inputs, rows, parameters)
        return self.submit(request) if self._chain is None else self._chain(request)

    def answer(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Answer `request`, which has passed the stages of the name; fails and raises as `infer`.

        The request fits the specification, but for its version.
        """
        chain = self._version_chain
        return self.submit(request) if chain is None else chain(request)

    def infer_decoded(
        self,
        nbytes: int,
        decode: Callable[[], Mapping[str, Array]],
        parameters: Parameters,
        digest: Callable[[], bytes] | None = None,
    ) -> Deferred[InferenceResponse]:
        """Answer one request whose inputs `decode` makes, of `nbytes` bytes, on the CPU pool.

        Bodies that have one `digest` are decoded to the same inputs, which may be kept; None for a
        body whose inputs are not.

        The inputs are answered by the servable that has this one's place once they are decoded,
        since a reload may have replaced this one. Fails and
        raises as `infer` does; raises QueueFull if the pool has too much to do.
        """
        parameters = self.timed(parameters)
        make, kept = partial(_decode, decode), self.decoded
        if kept is None or digest is None or parameters.fresh:
            decoded = self.run_on_pool(nbytes, make, parameters)
        else:
            run = partial(self.run_on_pool, parameters=parameters)
            decoded = kept.made(nbytes, digest, make, run)
        return decoded.addCallback(self.infer_by_successor, parameters)

    def infer_heavy(
        self,
        nbytes: int,
        parameters: Parameters,
        digest: Callable[[], bytes] | None,
        decode: Callable[..., Mapping[str, Array]],
        *arguments: Any,
    ) -> Deferred[InferenceResponse]:
        """Answer as `infer_decoded` does; `decode(*arguments)` is called in another process.

        That is for decoding which keeps the interpreter lock. `decode` is a function of a module,
        and `arguments` can be pickled.
        """
        parameters = self.timed(parameters)
        make, kept = partial(self.run_heavy, nbytes, parameters, decode, *arguments), self.decoded
        if kept is None or digest is None or parameters.fresh:
            decoded = make()
        else:
            run = partial(self.run_on_pool, parameters=parameters)
            decoded = kept.made_beside(nbytes, digest, make, run)
        return decoded.addCallback(self.infer_by_successor, parameters)

    def timed(self, parameters: Parameters) -> Parameters:
        """Return `parameters` with a deadline: their own, or that of a request that comes now."""
        if parameters.deadline is not None:
            return parameters
        return parameters._replace(deadline=self.deadline())

    def infer_by_successor(
        self, inputs: Mapping[str, Array], parameters: Parameters
    ) -> Deferred[InferenceResponse]:
        """Answer one request by the servable that has this one's place now.

        Raises Unavailable if that one has other outputs: the answer is written as this one says.
        """
        successor = self.successor()
        check_outputs(self.spec, successor.spec)
        return successor.infer(inputs, parameters)

    def run_on_pool(
        self, nbytes: int, function: Callable[[], Result], parameters: Parameters
    ) -> Deferred[Result]:
        """Run `function`, which holds on to `nbytes` bytes, on the CPU pool.

        The function has until the deadline in `parameters`, or without one until a request that
        comes now would be too late. Raises QueueFull: the pool has too many tasks or bytes already,
        or has too many of the client in `parameters`.
        """
        deadline = self.deadline() if parameters.deadline is None else parameters.deadline
        return self._pools.cpu.run(nbytes, deadline, function, parameters.client)

    def run_heavy(
        self,
        nbytes: int,
        parameters: Parameters,
        function: Callable[..., Result],
        *arguments: Any,
    ) -> Deferred[Result]:
        """Call `function(*arguments)`, which holds on to `nbytes` bytes, in another process.

        `parameters` and errors are as for `run_on_pool`.
        """
        deadline = self.deadline() if parameters.deadline is None else parameters.deadline
        codecs = self._pools.codecs
        return codecs.call(nbytes, deadline, parameters.client, function, *arguments)

    def deadline(self, timeout: float | None = None) -> float:
        """Return the time at which a request that comes now is worthless, in seconds.

        That is `timeout` seconds from now, or without one the servable's own.
        """
        return self._seconds() + (self.timeout if timeout is None else timeout)

    def set_name_stages(self, stages: Sequence[Stage]) -> None:
        """Send requests from now on through `stages` first, those of the name."""
        self._name_stages = tuple(stages)
        self._link()

    def set_version_stages(self, stages: Sequence[Stage]) -> None:
        """Send requests from now on through `stages` behind those of the name."""
        self._version_stages = tuple(stages)
        self._link()

    def drop_stages(self) -> None:
        """Forget all stages: they hold on to the model, and the chain holds on to this servable."""
        stages, self._name_stages, self._version_stages = self._version_stages, (), ()
        self._link()
        for stage in stages:
            stage.close()

    def drain_stages(self) -> Deferred[None]:
        """Fire when no stage has a request in its hands any more, from the first to the last."""
        drained: Deferred[None] = succeed(None)
        for stage in (*self._name_stages, *self._version_stages):
            drained.addCallback(_drain, stage)
        return drained

    def _link(self) -> None:
        stages = (*self._name_stages, *self._version_stages)
        self.reads_key = any(stage.reads_key for stage in stages)
        self.reads_client = any(stage.reads_client for stage in stages)
        self.reads_freshness = any(stage.reads_freshness for stage in stages)
        self.reads_once = any(stage.reads_once for stage in stages)
        self.picks_version = any(stage.picks_version for stage in stages)
        self._chain = chain_of(stages, self.submit)
        self._version_chain = chain_of(self._version_stages, self.submit)

    @abstractmethod
    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Answer `request`, which has passed all stages; fails and raises as `infer` does."""

    @abstractmethod
    def successor(self) -> Servable:
        """Return what takes requests in place of this one, which was found a while ago."""


def check_outputs(known: ModelSpec | None, now: ModelSpec) -> None:
    """Check that an answer of the model that is there `now` can be written as `known` says.

    None is a model of which nothing is known any more.

    Raises:
        Unavailable: it cannot; the request has not run.
    """
    if now is not known and (known is None or now.outputs != known.outputs):
        raise Unavailable(
            f"model {brief(now.name)}: expected the outputs that it had when the request came; it "
            "was replaced meanwhile by one with others"
        )


def _decode(decode: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
    """Return the inputs that `decode` makes, together with their size. The pool's thread."""
    return sized(decode())


def _drain(_: None, stage: Stage) -> Deferred[None]:
    return stage.drain()
