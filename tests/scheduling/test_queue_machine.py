"""The queue against a plain list: whatever is added, removed, packed and taken, in any order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batcher.errors import QueueFull, TooLarge
from batcher.scheduling.queue import BatchQueue, Part
from tests.support.scheduling import part

MAX_ROWS = 40
MAX_BYTES = 300
WEIGHTS = {1: 4.0, 2: 1.0, 3: 0.5}

groups = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = BatchQueue(MAX_ROWS, MAX_BYTES, WEIGHTS.__getitem__)
        self.waiting: list[Part] = []
        self.gone: list[Part] = []
        self.now = 0.0

    @rule(group=groups, level=st.sampled_from([*WEIGHTS]), rows=st.integers(1, 12), nbytes=st.integers(0, 60))
    def add(self, group: str, level: int, rows: int, nbytes: int) -> None:
        self.now += 1.0
        if self.rows + rows > MAX_ROWS or self.nbytes + nbytes > MAX_BYTES:
            with pytest.raises(QueueFull):
                self.queue.check_room(rows, nbytes)
            return
        self.queue.check_room(rows, nbytes)
        added = part(rows, group, level, self.now, nbytes=nbytes)
        self.queue.add(added)
        self.waiting.append(added)

    @rule(rows=st.integers(0, 80), nbytes=st.integers(0, 600))
    def ask_for_room(self, rows: int, nbytes: int) -> None:
        if rows > MAX_ROWS or nbytes > MAX_BYTES:
            with pytest.raises(TooLarge):
                self.queue.check_room(rows, nbytes)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        removed = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(removed)
        self.let_go([removed])

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def remove_what_is_gone(self, data: st.DataObject) -> None:
        assert not self.queue.remove(data.draw(st.sampled_from(self.gone)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), max_rows=st.integers(0, 16))
    def pack_with_some_left_out(self, data: st.DataObject, max_rows: int) -> None:
        group = data.draw(st.sampled_from(self.waiting)).group
        skip = data.draw(st.lists(st.sampled_from(self.waiting), unique_by=id))
        self.check_packed(self.queue.pack(group, max_rows, skip), group, max_rows, skip)

    @precondition(lambda self: self.waiting)
    @rule(max_rows=st.integers(1, 16))
    def take_at_the_head(self, max_rows: int) -> None:
        head = self.queue.head()
        assert head is not None
        taken = self.queue.pack(head.group, max_rows)
        self.check_packed(taken, head.group, max_rows, [])
        if head.rows <= max_rows:
            assert taken[0] is head
        if taken:
            self.queue.take(taken)
        self.let_go(taken)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), max_rows=st.integers(1, 16))
    def take_of_any_group(self, data: st.DataObject, max_rows: int) -> None:
        group = data.draw(st.sampled_from(self.waiting)).group
        taken = self.queue.pack(group, max_rows)
        self.check_packed(taken, group, max_rows, [])
        if taken:
            self.queue.take(taken)
        self.let_go(taken)

    def check_packed(self, packed: list[Part], group: object, max_rows: int, skip: list[Part]) -> None:
        assert sum(each.rows for each in packed) <= max_rows or len(packed) == 1, "what is too large stands alone"
        assert all(each.group == group for each in packed), "one group"
        assert not set(packed) & set(self.gone), "nothing is handed out twice"
        assert len(set(packed)) == len(packed)
        left_out = []
        for level in WEIGHTS:
            line = [each for each in self.waiting if (each.group, each.level) == (group, level) and each not in skip]
            own = [each for each in packed if each.level == level]
            assert own == line[: len(own)], "arrival order within a level"
            left_out += line[len(own) :][:1]
        room = max_rows - sum(each.rows for each in packed)
        assert not left_out or any(each.rows > room for each in left_out), "it ends only where a part does not fit"

    def let_go(self, parts: list[Part]) -> None:
        for each in parts:
            self.waiting.remove(each)
            self.gone.append(each)

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.waiting)

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.waiting)

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        self.queue.check_invariants()
        assert set(self.queue) == set(self.waiting)
        assert (len(self.queue), self.queue.rows, self.queue.nbytes) == (len(self.waiting), self.rows, self.nbytes)

    @invariant()
    def the_head_is_the_oldest_of_its_level(self) -> None:
        head = self.queue.head()
        assert (head is None) == (not self.waiting)
        if head is not None:
            assert head is next(each for each in self.waiting if each.level == head.level)

    @invariant()
    def groups_are_counted_apart(self) -> None:
        sizes = {}
        for group in "abc":
            own = [each for each in self.waiting if each.group == group]
            assert self.queue.group_rows(group) == sum(each.rows for each in own)
            if own:
                sizes[group] = self.queue.group_rows(group)
        for rows in (1, 8, 16):
            enough = [each.group for each in self.waiting if sizes[each.group] >= rows]
            found = self.queue.group_of_at_least(rows)
            assert found in enough if enough else found is None
        assert self.queue.oldest() is (self.waiting[0] if self.waiting else None)


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestQueueAgainstAList = QueueMachine.TestCase
