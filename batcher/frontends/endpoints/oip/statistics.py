"""The statistics extension of the Open Inference Protocol, over HTTP."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.oip.documents import Documents


class StatisticsRoutes:
    """`GET …/stats`: cumulative counts, and times in nanoseconds. Reactor thread."""

    def __init__(self, documents: Documents) -> None:
        """Answer what `documents` say."""
        self._documents = documents

    def all_models(self, call: Call) -> Deferred[Reply]:
        """Answer the statistics of every version of every model. Reactor thread."""
        return json_reply(self._documents.statistics("", ""))

    def model(self, call: Call) -> Deferred[Reply]:
        """Answer the statistics of one version, or of every version of a model. Reactor thread."""
        return json_reply(self._documents.statistics(*call.head.model()))
