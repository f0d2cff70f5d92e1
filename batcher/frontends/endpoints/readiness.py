"""Why the server is not ready as a whole, in the one wording that HTTP and gRPC share."""

from __future__ import annotations

from batcher.errors import Draining, ModelNotReady, Unavailable
from batcher.frontends.endpoints.engine import Engine


def unready_error(engine: Engine) -> Unavailable | None:
    """Return the error that says why `engine` is not ready; None if it is. Reactor thread."""
    if engine.ending:
        return Draining("not ready: the server is being stopped", retry_after=5)
    missing = [version for version in engine if version.is_missing]
    if not missing:
        return None
    whole = "; ".join(f"{version.title} is {version.status_text}" for version in missing)
    public = "; ".join(f"{version.title} is {version.public_text}" for version in missing)
    return ModelNotReady(f"not ready: {whole}", public=f"not ready: {public}")
