"""Why the server is not ready as a whole, in the one wording that HTTP and gRPC share."""

from __future__ import annotations

from batcher.errors import Draining, ModelNotReady, Unavailable
from batcher.frontends.endpoints.engine import Engine


def unready_error(engine: Engine) -> Unavailable | None:
    """Return the error that says why `engine` is not ready; None if it is. Reactor thread."""
    if engine.ending:
        return Draining("not ready: the server is being stopped", retry_after=5)
    if waiting := engine.unready():
        reasons = "; ".join(f"{title} is {reason}" for title, reason in waiting.items())
        return ModelNotReady(f"not ready: {reasons}")
    return None
