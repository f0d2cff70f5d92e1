"""The classification extension of the Open Inference Protocol.

Not compiled: a long loop in Python lets other threads in.
"""

from __future__ import annotations

import numpy as np

from batcher.core.spec import Array


def best_classes(scores: Array, count: int, names: tuple[str, ...]) -> Array:
    """Return each row's `count` best classes, the best first, as `value:index` or `value:index:label`.

    Args:
        scores: shape (rows, *classes); the classes of a row are counted over all its axes.
        count: how many; no more than there are.
        names: labels of the last axis.

    Returns:
        An object array of `bytes` of shape (rows, min(count, classes)).
    """
    rows = scores.reshape(len(scores), -1)
    if rows.dtype.kind == "f":
        order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    else:  # whole numbers may have no negative; of equals the first is to come first
        order = (rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1])[
            :, :count
        ]
    best = np.empty(order.shape, object)
    for row, indices in enumerate(order.tolist()):
        for place, index in enumerate(indices):
            value = rows[row, index]
            text = f"{value:f}" if rows.dtype.kind == "f" else str(value)
            label = f":{names[index % len(names)]}" if names else ""
            best[row, place] = f"{text}:{index}{label}".encode()
    return best
