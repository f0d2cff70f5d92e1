"""The slots of one child: which of them are free for the next batch.

Inputs and outputs of a batch lie in one slot, one behind the other. A slot is in one of three
states:

| state | from | to |
|---|---|---|
| free | the start | busy, when a batch takes the slot |
| busy | a batch is on its way to the child and back | held or free, when its outputs are read |
| held | views of the outputs exist | free, when the last view is gone |

The parent reads outputs as views, without a copy. A weak reference tells when the last view is
gone, so nobody who drops a view need say so. A slow client can hold a view for minutes. Therefore
at most `MAX_HELD_SLOTS` slots may be held; beyond that outputs are copied, and there is always a
slot for the next batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from batcher.core.ragged import copied
from batcher.core.spec import Array
from batcher.workers.shared_memory.packing import ArrayPlace, unpack
from batcher.workers.shared_memory.slots import Slot

MAX_HELD_SLOTS = 4
"""Slots that outputs may hold: those of two batches are being sent to clients while the next two
come home.
"""

MAX_COPIED_BYTES = 1 << 16
"""Bytes of outputs up to which they are copied at once: that takes microseconds, and the slot with
its inputs is free.
"""


class Ring:
    """The slots as the parent has them. One thread; views may be dropped on any."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        """Give out `slots`: `MAX_HELD_SLOTS` more than there can be batches at once.

        Child thread.
        """
        self._slots = slots

    def take(self) -> tuple[int, Slot]:
        """Return index and slot of a free slot, for a batch. Child thread."""
        number, slot = next(
            (number, slot)
            for number, slot in enumerate(self._slots)
            if not slot.busy and not slot.held
        )
        slot.busy = True
        return number, slot

    def read(self, slot: Slot, table: Sequence[ArrayPlace]) -> dict[str, Array]:
        """Return the arrays that lie in `slot`, whose batch is done.

        They are views that hold the slot, or copies. Child thread.
        """
        slot.busy = False
        nbytes = sum(place.nbytes for place in table)
        if nbytes > MAX_COPIED_BYTES and sum(slot.held for slot in self._slots) < MAX_HELD_SLOTS:
            return unpack(table, slot.lease())
        return {name: copied(array) for name, array in unpack(table, slot.memory).items()}
