"""The routes that Amazon SageMaker and Google Vertex AI expect of a container that serves a model.

Both clouds call a health route until the route answers 200, and post requests to one other route.
Where body and answer are JSON, both have TensorFlow Serving's form (`instances`, `predictions`):
that is the form of Vertex AI, and the usual one of SageMaker. Where either is of another media
type, the route answers as `/predict` does, with two differences, since SageMaker's batch transform
wants one line out for each line in: CSV has no header unless its media type says so, and an empty
line before the last line is refused.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.negotiation import accepts_json, media_type
from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints import tf_serving
from batcher.frontends.endpoints.call import Call, CallHead, Endpoint
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.failures import oip_failure_reply
from batcher.frontends.endpoints.health import HealthRoutes
from batcher.frontends.endpoints.openapi.native import native_operation
from batcher.frontends.endpoints.openapi.operations import READY
from batcher.frontends.endpoints.predict import Predict
from batcher.frontends.endpoints.routing import Route


class Invocations:
    """The endpoint that infers, with the only model there is. Reactor thread."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        """Answer by the models of `engine`; `settings` are those of `Predict`."""
        self._tf_predict = tf_serving.TfPredict(engine, settings.max_image_pixels)
        self._predict = Predict(engine, settings, csv_header="absent", line_for_line=True)

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        return self._tf_predict(call) if _is_json(call.head) else self._predict(call)


def cloud_routes(
    engine: Engine, settings: ServerSettings, health: HealthRoutes
) -> tuple[Route, ...]:
    """Return the routes of the clouds that `settings` switch on.

    `health` is the endpoint of `/readyz`.
    """
    invocations: Endpoint = Invocations(engine, settings)
    health_paths, predict_paths = [settings.vertex_health_route], [settings.vertex_predict_route]
    if settings.sagemaker:
        health_paths.insert(0, "/ping")
        predict_paths.insert(0, "/invocations")
    get, post = partial(Route, "GET"), partial(Route, "POST", fast=True, failure=oip_failure_reply)
    ready = "Whether every model is loaded, for a cloud's platform."
    infer = "Infer, as a cloud's platform asks."
    operation = partial(_operation, engine)
    return (
        *(get(path, health.ready, ready, READY) for path in health_paths if path is not None),
        *(post(path, invocations, infer, operation) for path in predict_paths if path is not None),
    )


def _operation(engine: Engine) -> dict[str, Any]:
    """Return the operation of a route that infers.

    The operation is that of `/predict`, but with TensorFlow Serving's JSON, and with 503 for a
    deadline that passed.
    """
    text = "Of the X- headers of /predict only X-Api-Key holds where body and answer are both JSON."
    operation = native_operation(engine) | {"description": text}
    operation["requestBody"]["content"]["application/json"] = {"schema": tf_serving.PREDICT_REQUEST}
    operation["responses"]["200"]["content"]["application/json"] = {
        "schema": tf_serving.PREDICT_ANSWER
    }
    del operation["responses"]["504"]
    operation["responses"]["503"] = tf_serving.PREDICT_FAILURES[503]
    return operation


def _is_json(head: CallHead) -> bool:
    kind, _ = media_type(head.header(b"content-type"))
    return kind in ("", "application/json") and accepts_json(head.header(b"accept"))
