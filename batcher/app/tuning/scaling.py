"""Curves of rows of some lengths, from those of another setup and from one that was measured.

Threads or instances change what a batch takes by how much there is to do in it. So batches of as
many elements are compared, and a batch of another length changes as one of the middle length that
has as many elements:

    present, rows of 20 elements       8 rows     80 ms
    with 2 threads                     8 rows     45 ms: 0.56 of it
    present, rows of 40 elements       4 rows     84 ms
    with 2 threads, not measured       4 rows     0.56 * 84 ms = 47 ms

Whatever the simulation chooses by such times gets real load before it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from batcher.app.simulation.costs import TableCost
from batcher.app.tuning.choosing import Setup
from batcher.app.tuning.curve import Curve, Timing
from batcher.app.tuning.subject import Changes

NOT_MEASURED = "not measured: times of the present settings, scaled as those of the middle row are"
"""Why a curve has no larger sizes."""


def middle_of(elements: Iterable[int]) -> int:
    """Return the middle of the `elements` of rows that were measured."""
    ordered = sorted(elements)
    return ordered[(len(ordered) - 1) // 2]


def scaled_setup(
    changes: Changes, curve: Curve, elements: int, present: Mapping[int, Curve]
) -> Setup:
    """Return a setup of which the `curve` of rows of `elements` elements was measured.

    Those of other rows are the `present` ones, scaled.
    """
    before = present[elements]
    by_elements = {
        each: curve if each == elements else _scaled(own, before, curve, each / elements)
        for each, own in present.items()
    }
    return Setup(changes, curve, by_elements)


def _scaled(own: Curve, before: Curve, after: Curve, rows: float) -> Curve:
    """Return `own` changed as `before` is by `after`, where a row of its counts as so many `rows`.

    Beyond the sizes that both have, all change as the largest does.
    """
    costs = TableCost(before.points), TableCost(after.points)
    most = min(before.sizes[-1], after.sizes[-1])

    def timing(one: Timing) -> Timing:
        old, new = (cost.seconds(min(one.rows * rows, most)) for cost in costs)
        return Timing(one.rows, tuple([seconds * new / old for seconds in one.runs]))

    return Curve(tuple(map(timing, own.timings)), NOT_MEASURED)
