"""Sizes that are smaller where a container has little memory, unless somebody has set them.

    size = min(default, memory limit of the control groups / parts)

With a limit of 1 GiB, `max_buffer_bytes` is 128 MiB in place of 512, and each of the others 64 MiB
in place of 256. From 4 GiB on nothing is smaller. All four together are at most 5/16 of the limit,
with one model: the rest is for the interpreter, the models and their batches.

`null` in the file, or no such line, is a size that nobody has set. The node's memory is no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batcher.config.reading import Source

SettingKey = tuple[str, ...]

PARTS: Mapping[SettingKey, int] = {
    ("max_buffer_bytes",): 8,
    ("cpu_pool_bytes",): 16,
    ("max_decoding_bytes",): 16,
    ("defaults", "max_queue_bytes"): 16,
}
"""From a setting to how many of it would fill the memory."""

ORIGIN = "the container's memory limit"


def follow_memory(source: Source, limit: int | None, defaults: Mapping[SettingKey, int]) -> None:
    """Set in `source` each size of `PARTS` that nobody has set.

    Args:
        source: all that was set.
        limit: bytes that this process may use; None for no limit.
        defaults: each size where there is memory enough.
    """
    for key, parts in PARTS.items():
        if _is_unset(source.values, key):
            most = defaults[key]
            source.override(key, most if limit is None else min(most, limit // parts), ORIGIN)


def _is_unset(values: Any, key: SettingKey) -> bool:
    """Return whether nobody has set the value at `key`."""
    for step in key[:-1]:
        if step not in values:
            return True
        values = values[step]
        if not isinstance(values, dict):
            return False  # an error that validation tells
    return values.get(key[-1]) is None
