"""What a client's load may override, and within which bounds."""

from __future__ import annotations

from typing import Any

from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec
from batcher.errors import InvalidInput


def check_overrides(overrides: dict[str, Any], settings: ModelSettings) -> None:
    """Check that `settings` of a model let a client have `overrides`. Raises InvalidInput."""
    _check_rows(
        overrides,
        max(settings.max_client_batch_size, settings.max_batch_size),
        f"`max_client_batch_size` is {settings.max_client_batch_size}",
    )


def check_batch_fits(overrides: dict[str, Any], settings: ModelSettings, spec: ModelSpec) -> None:
    """Check that the buffers of one batch of the model `spec` fit into `max_queue_bytes`.

    Nobody but the operator may have larger batches: each copy of the model holds such buffers, and
    warm-up fills all of them at once. Raises InvalidInput.
    """
    fits = settings.max_queue_bytes // max(spec.row_bytes, 1)
    _check_rows(
        overrides,
        max(fits, settings.max_batch_size),
        f"a row has {spec.row_bytes} bytes of inputs and outputs, and `max_queue_bytes` is "
        f"{settings.max_queue_bytes}",
    )


def _check_rows(overrides: dict[str, Any], most: int, reason: str) -> None:
    rows = overrides.get("max_batch_size", 1)
    if rows > most:
        raise InvalidInput(f"max_batch_size: expected at most {most}, since {reason}; got {rows}")
