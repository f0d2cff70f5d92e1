"""What a pipeline asks of a loaded model on a GPU: to keep rows there, and to take rows from there.

PyTorch is not imported here: the loop asks, and a server may have no model that needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol


class Wish(NamedTuple):
    """What somebody asks of one model.

    Attributes:
        keeps: outputs whose rows are to stay on the device, beside those on the host.
        takes: inputs whose rows are to be taken from the device, where they lie there.
        devices: devices for which this is of use.
    """

    keeps: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()


NO_WISH = Wish()


def joined_wish(wishes: Iterable[Wish]) -> Wish:
    """Return all `wishes` as one. Any thread."""
    found = NO_WISH
    for wish in wishes:
        found = Wish(*[one | other for one, other in zip(found, wish, strict=True)])
    return found


class KeptRows(Protocol):
    """The rows that one instance of a model keeps on its device, and those that it takes there.

    Attributes:
        device: where the model computes, such as `cuda:0`.
        takes: inputs whose rows are taken from the device, where they lie there.
        placed: the inputs of the batch that is put together now whose rows were found there.
    """

    device: str
    takes: frozenset[str]
    placed: dict[str, Any]

    def follow(self, wish: Wish) -> None:
        """Do what `wish` asks from the next batch on, and no more than that. Reactor thread."""

    def place(self, name: str, parts: Sequence[Any]) -> bool:
        """Have the rows of the input `name` of all `parts` taken from the device.

        Return False if not all of them lie there: they come from the host. Inference thread.
        """
