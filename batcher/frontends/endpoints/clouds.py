"""The contracts of clouds for containers that serve a model.

Amazon SageMaker's and Google Vertex AI's.

Both ask a health route until it answers 200, and post what is to be predicted to one other route.
JSON is laid out as TensorFlow Serving has it (`instances` and `predictions`), which is Vertex AI's
own form and SageMaker's usual one; a body or an answer of any other media type is that of
`/predict`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.negotiation import accepts_json, media_type
from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints import tf_serving
from batcher.frontends.endpoints.call import Call, CallHead, Endpoint
from batcher.frontends.endpoints.failures import oip_failure_reply
from batcher.frontends.endpoints.health import Health
from batcher.frontends.endpoints.openapi.document import inference
from batcher.frontends.endpoints.openapi.operations import READY
from batcher.frontends.endpoints.predict import Predict
from batcher.frontends.endpoints.routing import Route
from batcher.serving.server import ModelServer


class Invocations:
    """Answers for the server's only model."""

    def __init__(self, server: ModelServer, predict: Predict) -> None:
        """Answer from `server`; `predict` takes what is not JSON."""
        self._rows = tf_serving.Predict(server)
        self._predict = predict

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        return self._rows(call) if _is_json(call.head) else self._predict(call)


def cloud_routes(
    server: ModelServer, settings: ServerSettings, predict: Predict, health: Health
) -> tuple[Route, ...]:
    """Return the routes that `settings` switch on."""
    invocations: Endpoint = Invocations(server, predict)
    health_routes, predict_routes = [settings.vertex_health_route], [settings.vertex_predict_route]
    if settings.sagemaker:
        health_routes.insert(0, "/ping")
        predict_routes.insert(0, "/invocations")
    asked = "Whether every model is loaded, for a cloud's platform."
    posted = "Infer, as a cloud's platform asks."
    described = partial(_described, server)
    return (
        *(
            Route("GET", path, health.ready, asked, READY)
            for path in health_routes
            if path is not None
        ),
        *(
            Route("POST", path, invocations, posted, described, True, oip_failure_reply)
            for path in predict_routes
            if path is not None
        ),
    )


def _described(server: ModelServer) -> dict[str, Any]:
    """Return the description of inference in any format, where JSON is TensorFlow Serving's and a deadline is a 503."""
    where = (
        "Of the X- headers of /predict only X-Api-Key holds where body and answer are both JSON."
    )
    operation = inference(server) | {"description": where}
    operation["requestBody"]["content"]["application/json"] = {"schema": tf_serving.REQUEST}
    operation["responses"]["200"]["content"]["application/json"] = {"schema": tf_serving.ANSWER}
    del operation["responses"]["504"]
    operation["responses"]["503"] = tf_serving.FAILURES[503]
    return operation


def _is_json(head: CallHead) -> bool:
    kind, _ = media_type(head.header(b"content-type"))
    return kind in ("", "application/json") and accepts_json(head.header(b"accept"))
