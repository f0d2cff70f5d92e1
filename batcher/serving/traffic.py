"""Which version answers a request that names a label, or no version."""

from __future__ import annotations

from batcher.config.settings import ServerSettings
from batcher.serving.model_lifecycle import ModelLifecycle


class Traffic:
    """Directs the requests of each model as the settings say. Reactor thread."""

    def __init__(self, lifecycle: ModelLifecycle) -> None:
        """Direct requests to the versions of `lifecycle`; `follow` says how."""
        self._lifecycle = lifecycle

    def follow(self, settings: ServerSettings) -> None:
        """Go by `settings` from now on."""

        def number_of(name: str, label: str) -> str:
            labels = settings.for_model(name).labels
            return str(labels[label]) if label in labels else ""

        self._lifecycle.versions.number_of = number_of
        self._lifecycle.end_epoch()
