"""Health, metadata and model configuration of the Open Inference Protocol, over HTTP."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.oip.documents import Documents
from batcher.frontends.endpoints.readiness import unready_error


class MetadataRoutes:
    """Everything that clients ask for before they infer. Reactor thread."""

    def __init__(self, engine: Engine, documents: Documents) -> None:
        """Say whether `engine` is ready, and describe it by `documents`."""
        self._engine = engine
        self._documents = documents

    def live(self, call: Call) -> Deferred[Reply]:
        """Answer 200 as long as the loop turns. Reactor thread."""
        return json_reply({"live": True})

    def ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 once every model is ready.

        Raises Draining or ModelNotReady, which name what is not. Reactor thread.
        """
        if error := unready_error(self._engine):
            raise error
        return json_reply({"ready": True})

    def server(self, call: Call) -> Deferred[Reply]:
        """Answer name, version and extensions of the server. Reactor thread."""
        return json_reply(self._documents.server())

    def model_ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 if the model is ready; raises as `Engine.ready_model` does. Reactor thread."""
        version = self._engine.ready_model(*call.head.model())
        return json_reply({"name": version.spec.name, "ready": True})

    def model(self, call: Call) -> Deferred[Reply]:
        """Answer versions and tensors of a model. Reactor thread."""
        return json_reply(self._documents.model(*call.head.model()))

    def config(self, call: Call) -> Deferred[Reply]:
        """Answer the configuration of a model, as the configuration extension names its parts.

        Reactor thread.
        """
        return json_reply(self._documents.config(*call.head.model()))
