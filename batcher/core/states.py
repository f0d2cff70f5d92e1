"""The states of a life as a table: from each state, the states that may follow.

A thing with a life (the service, a version of a model) has an Enum of its states, one table, and an
attribute that holds its state now. Each change of that attribute goes through `StateTable.step`, so
a step that the table does not allow is an error at once, not a puzzle later.

The table holds no state itself: the owner's attribute is read for every request, and a compiled
class reads an attribute of its own faster than one of another object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import TypeVar

State = TypeVar("State", bound=Enum)


class StateTable(Mapping[State, frozenset[State]]):
    """From each state, the states that may follow. Never changes. Any thread.

    Example, for a lamp:

        STATES = StateTable(
            {Lamp.OFF: {Lamp.ON}, Lamp.ON: {Lamp.OFF}}, "the lamp cannot go from {old} to {new}"
        )
        self.state = STATES.step(self.state, Lamp.ON)
    """

    def __init__(self, followers: Mapping[State, Iterable[State]], refusal: str) -> None:
        """Keep the table.

        Args:
            followers: from each state of the Enum, the states that may follow.
            refusal: the text of the error for a step that the table does not allow, with `{old}`,
                `{new}` and, where the owner has a name, `{owner}`.
        """
        self._followers = {state: frozenset(after) for state, after in followers.items()}
        self._refusal = refusal

    def __getitem__(self, state: State) -> frozenset[State]:
        """Return the states that may follow `state`."""
        return self._followers[state]

    def __iter__(self) -> Iterator[State]:
        """Iterate over the states."""
        return iter(self._followers)

    def __len__(self) -> int:
        """How many states there are."""
        return len(self._followers)

    def step(self, old: State, new: State, owner: str = "") -> State:
        """Return `new`, if it may follow `old`.

        Raises:
            RuntimeError: `new` may not follow; the message names both states and the `owner`.
        """
        if new in self._followers[old]:
            return new
        raise RuntimeError(self._refusal.format(owner=owner, old=old.value, new=new.value))
