"""The servable of a model's name, where several versions share the requests of that name.

Its stages choose the version of each request. Behind them the request goes to that version, which
has stages of its own. All versions that share requests have the same inputs and outputs, since a
request is decoded before its version is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred

from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.serving.model_version import ModelVersion
from batcher.serving.servable import Servable
from batcher.serving.stages.stage import Stage
from batcher.workers.pools import Pools


class NamedModel(Servable):
    """Answers by one of several versions, while an epoch lasts. Reactor thread.

    Args:
        base: the version whose specification and settings all share.
        fitting: by number the versions that take such requests, `base` among them.
        stages: of the name; one chooses the version of each request.
        again: returns the servable of the name in a later epoch.
        pools: run what is too slow for the loop.
        seconds: the clock.
    """

    def __init__(
        self,
        base: ModelVersion,
        fitting: Mapping[str, ModelVersion],
        stages: Sequence[Stage],
        again: Callable[[], Servable],
        pools: Pools,
        seconds: Callable[[], float],
    ) -> None:
        """Take requests that fit `base`, and hand them on to one of the versions `fitting`."""
        super().__init__(base.spec, base.max_level, base.timeout, pools, seconds)
        self.limits, self.decoded = base.limits, base.decoded
        self._fitting = fitting
        self._again = again
        self.set_name_stages(stages)
        if any(version.reads_client for version in fitting.values()):
            self.reads_client = True
        if any(version.reads_freshness for version in fitting.values()):
            self.reads_freshness = True

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Have the version that `request` names answer it; fails and raises as `infer`."""
        return self._fitting[request.version].answer(request)

    def successor(self) -> Servable:
        """Return the servable of the name as it is now."""
        return self._again()


def alike(one: ModelVersion, other: ModelVersion) -> bool:
    """Return whether both versions have the same inputs and outputs."""
    return one.spec.inputs == other.spec.inputs and one.spec.outputs == other.spec.outputs
