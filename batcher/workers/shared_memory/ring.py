"""The slots that batches lie in on their way to a child and back, and which of them are free.

Inputs and outputs of a batch lie in one slot, one behind the other. What the parent reads out of it
are views; the slot is free again when the last of them is gone, which a weak reference tells, so
that whoever drops it need not say so. A slow client can hold a view for minutes, so only so many
slots may be held; beyond that results are copied, and there is always a slot for the next batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from batcher.core.spec import Array
from batcher.workers.shared_memory.packing import Place, unpack
from batcher.workers.shared_memory.slots import Slot

HELD = 4
"""Slots that results may hold: those of two batches are being written while the next two come
home.
"""

SMALL = 1 << 16
"""Up to this many bytes a result is copied at once: that takes microseconds, and the slot with its
inputs is free.
"""


class Ring:
    """The slots as the parent has them. One thread; views may be dropped on any."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        """Give out `slots`: `HELD` more than there can be batches at once."""
        self._slots = slots

    def take(self) -> tuple[int, Slot]:
        """Return a free slot and its number, for a batch."""
        number, slot = next(
            (number, slot)
            for number, slot in enumerate(self._slots)
            if not slot.busy and not slot.held
        )
        slot.busy = True
        return number, slot

    def read(self, slot: Slot, table: Sequence[Place]) -> dict[str, Array]:
        """Return the arrays that lie in `slot`, whose batch is done.

        Views that hold it, or copies.
        """
        slot.busy = False
        if (
            sum(place.nbytes for place in table) > SMALL
            and sum(slot.held for slot in self._slots) < HELD
        ):
            return unpack(table, slot.lease())
        return {name: array.copy() for name, array in unpack(table, slot.memory).items()}
