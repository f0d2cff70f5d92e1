"""This server's routes over Klein on twisted.web alone, on the epoll reactor.

The fast connection is measured against this server.
"""

from __future__ import annotations

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor

from batcher import ModelServer, ModelSettings, ServerSettings, load_model_definition
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.web.klein_app import klein_site
from batcher.serving.repository.repository import ModelRepository
from benchmarks.peers.models import MODELS, NAMES


def main() -> None:
    """Serve every benchmark model on the port that is the first argument."""
    settings = ServerSettings()
    sys.setswitchinterval(0.0002)
    server = ModelServer(reactor, reactor.callFromThread, settings)
    for name in NAMES:
        server.add(
            load_model_definition(name, "1", MODELS / name / "1"), ModelSettings(torch_threads=1)
        )
    disclosure = disclosure_of(settings, server.seconds)
    repository = ModelRepository(server, settings, MODELS)
    router = Router(
        routes(server, repository, settings, disclosure),
        AnswerLog(reactor, server.metrics),
        disclosure,
    )
    reactor.listenTCP(
        int(sys.argv[1]), klein_site(router, settings.max_body_bytes), interface="127.0.0.1"
    )
    reactor.run()


if __name__ == "__main__":
    main()
