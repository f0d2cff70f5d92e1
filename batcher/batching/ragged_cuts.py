"""Which of the requests that wait share a batch, where rows are padded to the longest.

In a batch each row costs as much as the longest. So the requests that wait are sorted by length and
cut into batches such that all batches together take the least time (`optimal_cuts`). One batch of
that plan is sent; the next one is planned anew, with the requests that have come meanwhile.

    lengths that wait        4  5  6  60  5  4  61  7
    sorted, and cut          4  4  5  5  6  7 | 60  61
    in order of arrival      4  5  6  60 | 5  4  61  7        two batches, each padded to 61

Whether a cut pays is a matter of the base, the time of a batch however small: with a large base all
eight share one batch.

**Which batch of the plan goes first.** The one with the request whose turn it is. So nobody waits
for better company. A request that would miss its deadline behind that batch goes before it.

**Nobody starves.** A request is overtaken by the rows that are sent before it though they stand
behind it. Those are never more than `MAX_OVERTAKING` full batches have: rows of a batch that would
overtake more are left out. So a request waits for the rows ahead of it, as in order of arrival, and
for at most so many more.

Source: the batching of sorted sequences by dynamic programming, for costs that are a line in rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from batcher.batching.ragged_cost import Plane
from batcher.core.padding import RaggedGroup

WINDOW_BATCHES = 2
"""Full batches in the window. With more, rows of rare lengths are overtaken too often."""

MAX_WINDOW_ROWS = 512
"""Most rows of the window, so that a plan takes well below a millisecond of the loop."""

MAX_OVERTAKING = 3
"""Full batches of rows by which a request may be overtaken; the window seldom leads to as many."""

Cost = Callable[[int, Hashable], float]
"""Estimates within how many seconds a batch of so many rows of a shape, begun now, is answered."""


def optimal_cuts(
    rows: Sequence[int],
    elements: Sequence[int],
    max_rows: int,
    max_elements: int,
    base: float,
    slope: Callable[[float], float],
) -> list[int]:
    """Return the ends of the batches of the least time in all.

    A batch is a stretch of the parts, and takes base + rows of the batch * slope(its longest). Of
    plans that take the same time, the one of larger batches is taken.

    Args:
        rows: rows of each part, at least 1 and at most `max_rows`.
        elements: elements of each of its rows, padding included, ascending.
        max_rows: most rows of a batch.
        max_elements: most elements of a batch, padding included, but a part alone may have more.
        base: seconds of a batch, however small.
        slope: seconds of a row of so many elements.
    """
    count = len(rows)
    best = [0.0] * (count + 1)  # seconds of the best plan for the parts before each
    begins = [0] * (count + 1)  # where the last batch of that plan begins
    for end in range(1, count + 1):
        longest, filled, begin = elements[end - 1], rows[end - 1], end - 1
        each = slope(longest)
        most = min(max_rows, max_elements // longest) if longest else max_rows
        best[end], begins[end] = best[begin] + filled * each, begin
        while begin > 0 and filled + rows[begin - 1] <= most:
            begin -= 1
            filled += rows[begin]
            seconds = best[begin] + filled * each
            if seconds <= best[end]:
                best[end], begins[end] = seconds, begin
        best[end] += base
    ends: list[int] = []
    while count:
        ends.append(count)
        count = begins[count]
    return ends[::-1]


class RaggedCuts:
    """Cuts batches from the requests of one model whose rows are padded. Reactor thread."""

    def __init__(self, plane: Plane, max_elements: int | None = None) -> None:
        """Cut by the times of `plane`; a batch has at most `max_elements`, None for any number."""
        self._plane = plane
        self.max_elements = max_elements if max_elements is not None else 1 << 62

    def most_rows(self, group: Hashable) -> int:
        """Return the most rows of a batch of `group`, whose length is known: 1 at least."""
        longest = group.elements if isinstance(group, RaggedGroup) else 0
        return max(self.max_elements // longest, 1) if longest else self.max_elements

    def pack(
        self, waiting: Levels, group: RaggedGroup, max_rows: int, now: float, cost: Cost
    ) -> tuple[list[Part], list[Part]]:
        """Return, taking none, the parts of the next batch of `group`, and those that are too late.

        Late are parts whose deadline has passed, and those of the batch that would be answered
        after their deadline if it ran now.
        """
        size = max(max_rows, min(WINDOW_BATCHES * max_rows, MAX_WINDOW_ROWS))
        window, late = waiting.pack_in_time(group, size, now, now, at_least_one=True)
        if not window:
            return window, late
        chosen, length = self._choose(window, group, max_rows, now, cost)
        until = now + cost(sum([part.rows for part in chosen]), group.padded_to(length))
        late += [part for part in chosen if part.deadline < until]
        return [part for part in chosen if part.deadline >= until], late

    def _choose(
        self, window: list[Part], group: RaggedGroup, max_rows: int, now: float, cost: Cost
    ) -> tuple[list[Part], int]:
        """Return the parts of the next batch, in their order in the window, and its length."""
        # A part that was cut before memory became short goes alone.
        if window[0].rows > max_rows:
            return window[:1], group.padding.length_of(window[0].inputs)
        lengths = [group.padding.length_of(part.inputs) for part in window]
        batches = self._plan(window, lengths, group, max_rows)
        own = next(batch for batch in batches if 0 in batch)
        first = _urgent(batches, own, window, lengths, group, now, cost)
        most = MAX_OVERTAKING * max_rows
        chosen = _without_overtaking(window, first, most) or _without_overtaking(window, own, most)
        _note_overtaking(window, chosen)
        return [window[index] for index in chosen], max([lengths[each] for each in chosen])

    def _plan(
        self, window: list[Part], lengths: list[int], group: RaggedGroup, max_rows: int
    ) -> list[list[int]]:
        """Return the batches of the plan, as indices of `window`, shorter ones first."""
        plane, width, padded = self._plane, group.width, group.padding.padded
        order = [index for index, part in enumerate(window) if part.rows <= max_rows]
        order.sort(key=lengths.__getitem__)
        ends = optimal_cuts(
            [window[index].rows for index in order],
            [width * padded(lengths[index]) for index in order],
            max_rows,
            self.max_elements,
            plane.base,
            plane.slope,
        )
        starts = [0, *ends[:-1]]
        return [order[start:end] for start, end in zip(starts, ends, strict=True)]


def _without_overtaking(window: list[Part], batch: list[int], most: int) -> list[int]:
    """Return those of `batch`, indices of `window`, that overtake no part by above `most` rows.

    They are in ascending order. The first part that stays is the one overtaken most.
    """
    chosen = sorted(batch)
    first = 0
    while first < len(chosen) and chosen[first] == first:
        first += 1
    allowed = most - window[first].overtaken if first < len(window) else 0
    kept = chosen[:first]
    for index in chosen[first:]:
        allowed -= window[index].rows
        if allowed < 0:
            break
        kept.append(index)
    return kept


def _note_overtaking(window: list[Part], chosen: list[int]) -> None:
    """Count for each part of `window` that stays the rows behind it that are `chosen`."""
    taken, behind = set(chosen), 0
    for index in range(chosen[-1], -1, -1):
        if index in taken:
            behind += window[index].rows
        else:
            window[index].overtaken += behind


def _urgent(
    batches: list[list[int]],
    first: list[int],
    window: list[Part],
    lengths: list[int],
    group: RaggedGroup,
    now: float,
    cost: Cost,
) -> list[int]:
    """Return `first`, or another of `batches` that would be late behind it and still is in time."""
    seconds = [
        cost(
            sum([window[index].rows for index in batch]),
            group.padded_to(max([lengths[index] for index in batch])),
        )
        for batch in batches
    ]
    later = now + seconds[batches.index(first)]
    for batch, own in zip(batches, seconds, strict=True):
        earliest = min([window[index].deadline for index in batch])
        if batch is not first and now + own <= earliest < later + own:
            return batch
    return first


def _without_overtaking(window: list[Part], batch: list[int], most: int) -> list[int]:
    """Return those of `batch`, indices of `window`, that overtake no part by above `most` rows.

    They are in ascending order. The first part that stays is the one overtaken most.
    """
    chosen = sorted(batch)
    first = 0
    while first < len(chosen) and chosen[first] == first:
        first += 1
    allowed = most - window[first].overtaken if first < len(window) else 0
    kept = chosen[:first]
    for index in chosen[first:]:
        allowed -= window[index].rows
        if allowed < 0:
            break
        kept.append(index)
    return kept


def _note_overtaking(window: list[Part], chosen: list[int]) -> None:
    """Count for each part of `window` that stays the rows behind it that are `chosen`."""
    taken, behind = set(chosen), 0
    for index in range(chosen[-1], -1, -1):
        if index in taken:
            behind += window[index].rows
        else:
            window[index].overtaken += behind


def _urgent(
    batches: list[list[int]],
    first: list[int],
    window: list[Part],
    lengths: list[int],
    group: RaggedGroup,
    now: float,
    cost: Cost,
) -> list[int]:
    """Return `first`, or another of `batches` that would be late behind it and still is in time."""

    def end(batch: list[int], begin: float) -> float:
        rows = sum([window[index].rows for index in batch])
        return begin + cost(rows, group.padded_to(max([lengths[index] for index in batch])))

    after = end(first, now)
    for batch in batches:
        earliest = min([window[index].deadline for index in batch])
        if batch is not first and end(batch, now) <= earliest < end(batch, after):
            return batch
    return first


def padded_group(parts: Sequence[Part]) -> Hashable:
    """Return the group of a batch of `parts`; where rows are padded, with its length."""
    group = parts[0].group
    if not isinstance(group, RaggedGroup):
        return group
    length_of = group.padding.length_of
    return group.padded_to(max([length_of(part.inputs) for part in parts]))


def not_longer(parts: list[Part], group: Hashable) -> list[Part]:
    """Return those of `parts` that a batch of `group` can take without longer padding."""
    if not isinstance(group, RaggedGroup):
        return parts
    length_of = group.padding.length_of
    return [part for part in parts if length_of(part.inputs) <= group.length]
