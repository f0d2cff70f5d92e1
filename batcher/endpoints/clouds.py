"""The contracts of clouds for containers that serve a model: Amazon SageMaker's and Google Vertex AI's.

Both ask a health route until it answers 200, and post what is to be predicted to one other route. JSON is laid out as
TensorFlow Serving has it (`instances` and `predictions`), which is Vertex AI's own form and SageMaker's usual one; a body or an
answer of any other media type is that of `/predict`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.negotiation import media_type
from batcher.config.settings import ServerSettings
from batcher.endpoints import tf_serving
from batcher.endpoints.call import Call, CallHead, Endpoint
from batcher.endpoints.failures import oip_failure_reply
from batcher.endpoints.health import Health
from batcher.endpoints.predict import Predict
from batcher.endpoints.routing import Route
from batcher.server import ModelServer

_ANY = ("", "*/*", "application/json", "application/*")


class Invocations:
    """Answers for the server's only model."""

    def __init__(self, server: ModelServer, predict: Predict) -> None:
        """Answer from `server`; `predict` takes what is not JSON."""
        self._rows = tf_serving.Predict(server)
        self._predict = predict

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        return self._rows(call) if _is_json(call.head) else self._predict(call)


def cloud_routes(server: ModelServer, settings: ServerSettings, predict: Predict, health: Health) -> tuple[Route, ...]:
    """Return the routes that `settings` switch on."""
    invocations: Endpoint = Invocations(server, predict)
    routes = []
    if settings.sagemaker:
        routes += [("GET", "/ping", health.ready), ("POST", "/invocations", invocations)]
    if settings.vertex_health_route is not None:
        routes.append(("GET", settings.vertex_health_route, health.ready))
    if settings.vertex_predict_route is not None:
        routes.append(("POST", settings.vertex_predict_route, invocations))
    return tuple(
        Route(method, path, endpoint, _SUMMARIES[method], method == "POST", _OPERATIONS[method], oip_failure_reply)
        for method, path, endpoint in routes
    )


_SUMMARIES = {"GET": "Whether every model is loaded, for a cloud's platform.", "POST": "Infer, as a cloud's platform asks."}
_OPERATIONS = {"GET": tf_serving.operation(ready={"type": "boolean"}), "POST": tf_serving.PREDICT}


def _is_json(head: CallHead) -> bool:
    kind, _ = media_type(head.header(b"content-type"))
    return kind in ("", "application/json") and head.header(b"accept").strip() in _ANY
