"""A stage: what happens to a request between the front and the queue.

A stage stands in the way of every request of a model. It answers the request by itself, or calls
`go_on` with the same request or a changed copy. `go_on` is the next stage; behind the last stage it
is the model's queue. The chain is put together when a model is loaded, and anew when quotas change,
but not while a request is on its way: a model without stages has no chain, and its requests go
straight to the queue.

Two kinds of stages stand one behind the other. The stages of the name come first: they stay when a
version is replaced, as quotas do. A request that names no version passes those that choose one
(`split.py`, `shadow.py`) as well, where the settings ask for that. The stages of the version
follow: they belong to what was loaded, as `preprocess` and `postprocess` do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred, succeed

from batcher.core.request import InferenceRequest, InferenceResponse

GoOn = Callable[[InferenceRequest], Deferred[InferenceResponse]]
"""Answers a request by what stands behind a stage. Raises where the request is refused at once."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Stage(ABC):
    """One stage of a model. Reactor thread.

    Attributes:
        reads_key: whether the stage looks at the API key of a request; without such a stage, fronts
            do not read the key.
        reads_client: likewise, whether the stage asks whose request it is.
        reads_freshness: likewise, whether the stage asks if the model is to run in any case; such a
            stage may answer from what is kept.
        reads_once: likewise, whether the stage asks by which text a client repeats the request.
        picks_version: whether the stage chooses the version by the request's route; with such a
            stage, fronts read the route and say which version has answered.
    """

    reads_key: ClassVar[bool] = False
    reads_client: ClassVar[bool] = False
    reads_freshness: ClassVar[bool] = False
    reads_once: ClassVar[bool] = False
    picks_version: ClassVar[bool] = False

    @abstractmethod
    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Answer `request`, or have `go_on` answer it.

        `go_on` is called at most once, or once for each piece that `request` is cut into.

        Cancelling the Deferred cancels what the stage waits for. Raises where the request is
        refused at once.
        """

    def drain(self) -> Deferred[None]:
        """Fire when no request is in the hands of the stage itself any more."""
        return succeed(None)

    def close(self) -> None:  # noqa: B027 - most stages keep nothing
        """Let go of what the stage keeps: no request passes it any more."""


def chain_of(stages: Sequence[Stage], last: GoOn) -> GoOn | None:
    """Return what answers a request by `stages`, the first one first, and behind them by `last`.

    None where there are no stages.
    """
    if not stages:
        return None
    for stage in reversed(stages):
        last = partial(stage.infer, go_on=last)
    return last
