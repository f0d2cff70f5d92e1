"""Rows without an element, on which a graph has failed: the client's fault, and said so.

Such rows are refused only where the graph has failed. Some graphs are right to run on them: a
decoder takes a past of length 0 with the first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batcher.errors import InvalidInput
from batcher.models.onnx.binding import Feed
from batcher.models.protocol import Arrays


def empty_rows(inputs: Arrays, feeds: Sequence[Feed], nodes: Sequence[Any]) -> InvalidInput | None:
    """Return the error that names the first input without an element; None where all have some.

    Args:
        inputs: the batch. Its requests have rows of one shape, so the error is true for each.
        feeds: how each input enters the graph.
        nodes: the inputs of the graph, as onnxruntime names their axes.

    Inference thread.
    """
    axes = {node.name: list(node.shape) for node in nodes}
    for feed in feeds:
        array = inputs.get(feed.name)
        if array is None or array.size:
            continue
        axis = array.shape.index(0)
        called = _called(axes.get(feed.graph_name, []), feed, axis)
        return InvalidInput(
            f"input {feed.name!r}: expected at least 1 element on axis {axis}{called}, without "
            "which the graph fails; got 0"
        )
    return None


def _called(names: list[Any], feed: Feed, axis: int) -> str:
    """Return the name of a batch's `axis` in brackets, where the graph has one.

    `names` are those of the graph's axes, of which one may count the rows. Inference thread.
    """
    if feed.axis is not None:
        names[feed.axis : feed.axis + 1] = []
    name = names[axis - 1] if axis <= len(names) else None
    return f" ({name!r})" if name and isinstance(name, str) else ""
