"""Which of the requests that wait share a batch, where rows are padded to the longest.

In a batch each row costs as much as the longest. So the requests that wait are sorted by length and
cut into batches such that all batches together take the least time (`optimal_cuts`). One batch of
that plan is sent; the next one is planned anew, with the requests that have come meanwhile.

    lengths that wait        4  5  6  60  5  4  61  7
    sorted, and cut          4  4  5  5  6  7 | 60  61
    in order of arrival      4  5  6  60 | 5  4  61  7        two batches, each padded to 61

Whether a cut pays is a matter of the base, the time of a batch however small: with a large base all
eight share one batch.

A row of several lengths, such as a picture, is as long as it has elements. In a batch each row has
the greatest height and the greatest width. No one order of such rows is the best for all cuts, so
three plans are compared: sorted by elements, by height and by width.

**Which batch of the plan goes first.** The one with the request whose turn it is. So nobody waits
for better company. A request that would miss its deadline behind that batch goes before it.

**Nobody starves.** A request's turn is the batch in which it would go in order of arrival, with as
many rows in each batch. It is overdue by the batches that were sent since.

    waiting                a  b  c  d  e  f
    sent                   a  c  e
    in order of arrival    a  b  c          so b is overdue by 1; the turn of d comes later

- The longest request that waits goes next as soon as it is overdue, with those of about its length.
  So an outlier among short ones goes at most `MAX_LATE` batches after its turn.
- Any request goes before more rows have been sent since its turn than `MAX_LATE` full batches have.
  Those that would go later ride in the next batch, whatever their lengths.

Refused: at most `MAX_LATE` batches as they are sent, for all requests alike. A window of two full
batches is often cut into eight; each length would go before enough rows of that length have come.
The loads of `benchmarks/ragged.py` took 1.2 to 2.3 times the time.

Source: the batching of sorted sequences by dynamic programming, for costs that are a line in rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import inf, prod
from typing import NamedTuple

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from batcher.batching.ragged_cost import Plane
from batcher.core.padding import Lengths, RaggedGroup, fit, longest_of

WINDOW_BATCHES = 2
"""Full batches in the window. With more, rows of rare lengths are overtaken too often."""

BLOCKS = 64
"""Blocks that a full batch is planned in. A block is one row where batches have up to 64 rows; in
larger ones rows of about one length are planned together, or a plan would take milliseconds.
"""

MAX_LATE = 3
"""Batches by which a request may go later than in order of arrival.

Full batches of rows; for the longest request that waits, batches as they are sent.
"""

Cost = Callable[[int, Hashable], float]
"""Estimates within how many seconds a batch of so many rows of a shape, begun now, is answered."""


def optimal_cuts(
    rows: Sequence[int], sizes: Sequence[Lengths], max_rows: int, max_elements: int, plane: Plane
) -> tuple[list[int], float]:
    """Return the ends of the batches that take the least time in all, and the seconds of all.

    Of equal plans, the one with larger batches. Part number i has `rows[i]` rows of the lengths
    `sizes[i]`, padding included; the first lengths are ascending where there are no others. A row
    of a batch has as many elements as the product of the greatest lengths. A part alone may have
    more than `max_elements`, a batch of several has not.
    """
    best = [0.0]  # seconds of the best plan for the parts before each
    begins = [0]  # where the last batch of that plan begins
    limits = _Limits(max_rows, max_elements, plane)
    for end in range(1, len(rows) + 1):
        begin, seconds = _last_batch(rows, sizes, best, end, limits)
        best.append(seconds + plane.base)
        begins.append(begin)
    ends: list[int] = []
    end = len(rows)
    while end:
        ends.append(end)
        end = begins[end]
    return ends[::-1], best[-1]


class _Limits(NamedTuple):
    """How large a batch may be, and what its rows take."""

    rows: int
    elements: int
    plane: Plane

    def of(self, lengths: Lengths) -> tuple[int, float]:
        """Return the most rows of a batch of `lengths`, and the seconds that each of them takes."""
        elements = prod(lengths)
        most = min(self.rows, self.elements // elements) if elements else self.rows
        return most, self.plane.slope(elements)


def _last_batch(
    rows: Sequence[int], sizes: Sequence[Lengths], best: list[float], end: int, limits: _Limits
) -> tuple[int, float]:
    """Return where the best last batch before `end` begins, and the seconds without its base."""
    begin = at = end - 1
    filled, longest = rows[begin], sizes[begin]
    most, slope = limits.of(longest)
    least = best[begin] + filled * slope
    has_several = len(longest) > 1
    while begin > 0:
        begin -= 1
        filled += rows[begin]
        if has_several and not fit(sizes[begin], longest):
            longest = longest_of((longest, sizes[begin]))
            most, slope = limits.of(longest)
        if filled > most:
            break
        seconds = best[begin] + filled * slope
        if seconds <= least:
            least, at = seconds, begin
    return at, least


class RaggedCuts:
    """Cuts batches from the requests of one model whose rows are padded. Reactor thread.

    Attributes:
        max_elements: most elements of a batch, padding included.
    """

    def __init__(self, plane: Plane, max_elements: int | None = None) -> None:
        """Cut by the times of `plane`; a batch has at most `max_elements`, None for any number."""
        self.plane = plane
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
        size = WINDOW_BATCHES * max_rows
        parts, late = waiting.pack_in_time(group, size, now, now, at_least_one=True)
        if not parts:
            return parts, late
        window = _Window(parts, group)
        # A part that was cut before memory became short goes alone.
        alone = parts[0].rows > max_rows
        chosen = [0] if alone else window.choose(self, max_rows, now, cost)
        until = now + window.seconds(chosen, cost)
        late += [parts[index] for index in chosen if parts[index].deadline < until]
        in_time = [index for index in chosen if parts[index].deadline >= until]
        if in_time:
            window.note_sent(in_time)
        return [parts[index] for index in in_time], late


class _Window:
    """The parts among which a batch is planned, in their order, and the lengths of each.

    Batches are lists of indices of these parts.
    """

    def __init__(self, parts: list[Part], group: RaggedGroup) -> None:
        self._parts = parts
        self._group = group
        self._lengths = [group.padding.lengths_of(part.inputs) for part in parts]
        self._elements = [prod(lengths) for lengths in self._lengths]

    def seconds(self, batch: list[int], cost: Cost) -> float:
        """Return within how many seconds `batch` is answered if it runs now."""
        rows = sum([self._parts[index].rows for index in batch])
        return cost(rows, self._group.padded_to(self._longest_of(batch)))

    def choose(self, cuts: RaggedCuts, max_rows: int, now: float, cost: Cost) -> list[int]:
        """Return the batch that goes next, ascending."""
        batches = self._plan(cuts, max_rows)
        longest = self._longest(batches)
        overdue = self._parts[longest].overdue
        if overdue:
            chosen = _batch_with(longest, batches)
        else:
            chosen = self._urgent(batches, _batch_with(0, batches), now, cost)
        rows = sum([self._parts[index].rows for index in chosen])
        due = self._due(rows, max_rows)
        if set(due).issubset(chosen):
            return sorted(chosen)
        if overdue >= MAX_LATE and longest not in due:
            due.append(longest)
            rows = min(rows + self._parts[longest].rows, max_rows)
        return self._batch_of_due(due, batches, cuts, rows)

    def note_sent(self, batch: list[int]) -> None:
        """Note that `batch`, ascending, is sent: whom it overtakes, and who is overdue then."""
        parts = self._parts
        taken, behind = set(batch), 0
        for index in range(batch[-1], -1, -1):
            if index in taken:
                behind += parts[index].rows
            else:
                parts[index].overtaken += behind
        ahead = 0
        for index in range(len(parts)):
            if index in taken:
                continue
            ahead += parts[index].rows
            if ahead > parts[index].overtaken:
                break
            parts[index].overdue += 1

    def _longest(self, batches: list[list[int]]) -> int:
        """Return the longest part of a plan; of equals, the one that has waited longest."""
        elements = self._elements
        planned = [index for batch in batches for index in batch]
        most = max([elements[index] for index in planned])
        return min([index for index in planned if elements[index] == most])

    def _longest_of(self, batch: Sequence[int]) -> Lengths:
        """Return the lengths of a batch, without padding to multiples or sizes."""
        return longest_of([self._lengths[index] for index in batch])

    def _size_of(self, batch: Sequence[int]) -> Lengths:
        """Return the lengths of a batch, such that their product is the elements of a row."""
        padding, width = self._group.padding, self._group.width
        # most batches here are blocks of one part: nothing is to be compared
        own = self._lengths[batch[0]] if len(batch) == 1 else self._longest_of(batch)
        first, *others = padding.padded_lengths(own)
        return (width * first, *others)

    def _due(self, rows: int, max_rows: int) -> list[int]:
        """Return the parts that would go too late if they were not in a batch of `rows`, now.

        Since the turn of a part `overtaken - ahead` rows were sent, with its own rows in `ahead`:
        those that overtook it, without those that came before their own turn.
        """
        due: list[int] = []
        ahead = 0
        for index, part in enumerate(self._parts):
            ahead += part.rows
            # A part that was cut before memory became short goes alone, when it is the first.
            if part.overtaken - ahead + rows <= MAX_LATE * max_rows or part.rows > max_rows:
                break
            due.append(index)
        return due

    def _batch_of_due(
        self, due: list[int], batches: list[list[int]], cuts: RaggedCuts, rows: int
    ) -> list[int]:
        """Return a batch of `due`, filled up to `rows` rows with parts of about their length.

        The first of `due` alone if a batch has not enough elements for all.
        """
        longest = max(due, key=self._elements.__getitem__)
        lengths = self._longest_of(due)
        most = min(rows, cuts.most_rows(self._group.padded_to(lengths)))
        chosen: list[int] = []
        for index in [*due, *sorted(_batch_with(longest, batches))]:
            own = self._parts[index].rows
            if index in chosen or (chosen and own > most):
                continue
            if not fit(self._lengths[index], lengths):
                continue
            chosen.append(index)
            most -= own
        return sorted(chosen)

    def _plan(self, cuts: RaggedCuts, max_rows: int) -> list[list[int]]:
        """Return the batches of the least time in all."""
        fitting = [index for index, part in enumerate(self._parts) if part.rows <= max_rows]
        order = sorted(fitting, key=self._elements.__getitem__)
        plan, seconds = self._plan_of(order, cuts, max_rows)
        axes = len(self._lengths[0])
        for axis in range(axes if axes > 1 else 0):
            sizes = [lengths[axis] for lengths in self._lengths]
            other, other_seconds = self._plan_of(
                sorted(fitting, key=sizes.__getitem__), cuts, max_rows
            )
            if other_seconds < seconds:
                plan, seconds = other, other_seconds
        return plan

    def _plan_of(
        self, order: list[int], cuts: RaggedCuts, max_rows: int
    ) -> tuple[list[list[int]], float]:
        """Return the best cuts of the parts in `order`, and the seconds of all batches."""
        parts, group = self._parts, self._group
        longest = max(group.padded_to(self._longest_of(order)).elements, 1)
        most = min(max_rows, cuts.max_elements // longest) // BLOCKS
        blocks = _blocks([parts[index].rows for index in order], max(most, 1))
        rows = [sum([parts[order[at]].rows for at in range(begin, end)]) for begin, end in blocks]
        sizes = [self._size_of(order[begin:end]) for begin, end in blocks]
        ends, seconds = optimal_cuts(rows, sizes, max_rows, cuts.max_elements, cuts.plane)
        stops = [blocks[end - 1][1] for end in ends]
        starts = [0, *stops[:-1]]
        return [order[start:stop] for start, stop in zip(starts, stops, strict=True)], seconds

    def _urgent(
        self, batches: list[list[int]], own: list[int], now: float, cost: Cost
    ) -> list[int]:
        """Return `own`, or another of `batches` that is in time now, and behind `own` is not."""
        earliest = [min([self._parts[index].deadline for index in batch]) for batch in batches]
        if min(earliest) == inf:
            return own
        wait = self.seconds(own, cost)
        for batch, deadline in zip(batches, earliest, strict=True):
            if batch is own:
                continue
            end = now + self.seconds(batch, cost)
            if end <= deadline < end + wait:
                return batch
        return own


def _batch_with(index: int, batches: list[list[int]]) -> list[int]:
    """Return the batch that has the part `index`."""
    for batch in batches:
        if index in batch:
            return batch
    raise ValueError(f"expected a batch with part {index}")


def _blocks(rows: list[int], most: int) -> list[tuple[int, int]]:
    """Return begin and end of stretches of parts with at most `most` rows, or one part, each."""
    blocks: list[tuple[int, int]] = []
    begin = filled = 0
    for end, own in enumerate(rows):
        if end > begin and filled + own > most:
            blocks.append((begin, end))
            begin, filled = end, 0
        filled += own
    if rows:
        blocks.append((begin, len(rows)))
    return blocks


def padded_group(parts: Sequence[Part]) -> Hashable:
    """Return the group of a batch of `parts`; where rows are padded, with its length."""
    group = parts[0].group
    if not isinstance(group, RaggedGroup):
        return group
    lengths_of = group.padding.lengths_of
    return group.padded_to(longest_of([lengths_of(part.inputs) for part in parts]))


def not_longer(parts: list[Part], group: Hashable) -> list[Part]:
    """Return those of `parts` that a batch of `group` can take without longer padding."""
    if not isinstance(group, RaggedGroup):
        return parts
    lengths_of = group.padding.lengths_of
    return [part for part in parts if fit(lengths_of(part.inputs), group.lengths)]
