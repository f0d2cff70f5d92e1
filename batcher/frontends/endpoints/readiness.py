"""Why the server is not ready as a whole, in the one wording that HTTP and gRPC share."""

from __future__ import annotations

from batcher.errors import Draining, ModelNotReady, Unavailable
from batcher.frontends.endpoints.engine import Engine


def unready_error(engine: Engine) -> Unavailable | None:
    """Return the error that says why `engine` is not ready; None if it is. Reactor thread."""
    if engine.ending:
        return Draining("not ready: the server is being stopped", retry_after=5)
    if waiting := engine.unready():
        public = f"not ready: {_listed(engine.unready(public=True))}"
        return ModelNotReady(f"not ready: {_listed(waiting)}", public=public)
    return None


def _listed(waiting: dict[str, str]) -> str:
    return "; ".join(f"{title} is {reason}" for title, reason in waiting.items())
