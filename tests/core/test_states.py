"""A table of states: what may follow, and the error for what may not."""

from __future__ import annotations

from enum import Enum
from itertools import product

import pytest

from batcher.core.states import StateTable


class Door(Enum):
    OPEN = "open"
    SHUT = "shut"
    LOCKED = "locked"


LAWFUL = {
    (Door.OPEN, Door.SHUT),
    (Door.SHUT, Door.OPEN),
    (Door.SHUT, Door.LOCKED),
    (Door.LOCKED, Door.SHUT),
}
DOORS = StateTable(
    {Door.OPEN: {Door.SHUT}, Door.SHUT: {Door.OPEN, Door.LOCKED}, Door.LOCKED: {Door.SHUT}},
    "{owner}: {old} cannot become {new}",
)


@pytest.mark.parametrize(("old", "new"), list(product(Door, Door)))
def test_only_what_the_table_allows_may_follow(old: Door, new: Door) -> None:
    if (old, new) in LAWFUL:
        assert DOORS.step(old, new) is new
    else:
        with pytest.raises(RuntimeError):
            DOORS.step(old, new)


def test_a_refused_step_names_its_owner_and_both_states() -> None:
    with pytest.raises(RuntimeError, match=r"^\{front\} door: open cannot become locked$"):
        DOORS.step(Door.OPEN, Door.LOCKED, "{front} door")


def test_the_table_can_be_read() -> None:
    assert set(DOORS) == set(Door)
    assert len(DOORS) == 3
    assert DOORS[Door.LOCKED] == {Door.SHUT}
