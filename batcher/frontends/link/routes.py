"""The table of routes of a front process: the same routes, answered by the engine.

Those that infer decode here and ask with arrays. A request that this front cannot decode, since it
does not know the model, goes to the engine as it came, and so does every request of other routes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from batcher.frontends.endpoints.call import Call, Endpoint
from batcher.frontends.endpoints.oip.infer import Infer
from batcher.frontends.endpoints.predict import Predict
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.tf_serving import TfPredict
from batcher.frontends.link.asking import EngineLink, NotHere

METRICS_PATTERN = "/metrics"


def front_routes(
    routes: Sequence[Route], link: EngineLink, report: Callable[[], None]
) -> tuple[Route, ...]:
    """Return `routes` as a front answers them through `link`.

    `report` sends what the front has counted.
    """
    # A body is kept here until it is whole, and then goes to the engine.
    return tuple(
        replace(route, endpoint=_endpoint(route, link, report), sink=None) for route in routes
    )


def _endpoint(route: Route, link: EngineLink, report: Callable[[], None]) -> Endpoint:
    def forward(call: Call) -> Deferred[Any]:
        if route.pattern == METRICS_PATTERN:
            report()
        return link.call(route.method, route.pattern, call)

    decode = route.endpoint
    if not isinstance(decode, Predict | Infer | TfPredict):
        return forward

    def infer(call: Call) -> Deferred[Any]:
        try:
            return decode(call)
        except NotHere:
            return forward(call)

    return infer
