"""The classification extension of the Open Inference Protocol: the best classes of each row.

This module is not compiled: while a long loop of interpreted Python runs, the interpreter switches
to other threads.
"""

from __future__ import annotations

import numpy as np

from batcher.core.spec import Array


def best_classes(scores: Array, count: int, names: tuple[str, ...]) -> Array:
    """Return the `count` best classes of each row, the best class first.

    Args:
        scores: shape (rows, *classes); the classes of a row are counted over all its axes.
        count: most classes of a row.
        names: labels of the last axis; empty for a model without labels.

    Returns:
        Object array of `bytes`, `value:index` or `value:index:label`, of shape (rows, min(count,
        classes)).
    """
    rows = scores.reshape(len(scores), -1)
    order = _best_first(rows)[:, :count]
    best = np.empty(order.shape, object)
    for row, indices in enumerate(order.tolist()):
        for place, index in enumerate(indices):
            value = rows[row, index]
            text = f"{value:f}" if rows.dtype.kind == "f" else str(value)
            label = f":{names[index % len(names)]}" if names else ""
            best[row, place] = f"{text}:{index}{label}".encode()
    return best


def _best_first(rows: Array) -> Array:
    """Return the indices of each row's values, the largest value first; equals keep their order."""
    if rows.dtype.kind == "f":
        return np.asarray(np.argsort(-rows, axis=1, kind="stable"))
    # whole numbers may have no negative, so they are sorted backwards and the indices turned round
    backwards = np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    return np.asarray(rows.shape[1] - 1 - backwards)
