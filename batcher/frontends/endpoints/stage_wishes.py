"""What a request says for the stages behind the front, whichever protocol has brought it."""

from __future__ import annotations

from typing import NamedTuple

from batcher.core.request import Parameters
from batcher.frontends.endpoints.call import CallHead
from batcher.serving.servable import Servable


class StageWishes(NamedTuple):
    """What stages read of a request; each empty where no stage reads it.

    Attributes:
        key: API key whose quota the request is charged to.
        route: text by which the version is chosen.
        fresh: whether the model is to run in any case, whatever answers are kept.
    """

    key: str = ""
    route: str = ""
    fresh: bool = False

    def parameters(
        self, deadline: float | None = None, level: int = 0, client: str = ""
    ) -> Parameters:
        """Return the parameters of a request with these wishes; the rest is as in Parameters."""
        return Parameters(deadline, level, self.key, client, self.route, self.fresh)


NO_WISHES = StageWishes()


def wishes_of(head: CallHead, servable: Servable) -> StageWishes:
    """Return what the stages of `servable` read of `head`."""
    return StageWishes(
        head.key() if servable.reads_key else "",
        head.route() if servable.picks_version else "",
        servable.reads_freshness and head.fresh(),
    )
