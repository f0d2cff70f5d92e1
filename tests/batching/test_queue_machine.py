"""The queue against a plain list: whatever is added, removed, packed and taken, in any order."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, inf, log2

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batcher.batching.part import Part
from batcher.batching.queue import BatchQueue
from batcher.errors import QueueFull, TooLarge
from tests.support.scheduling import part

MAX_ROWS = 40
MAX_BYTES = 300
WEIGHTS = {1: 4.0, 2: 1.0, 3: 0.5}
BULK = 4

groups = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    @initialize(
        ageing=st.sampled_from([inf, 10.0, 0.1]), smaller_first=st.sampled_from([0.0, 0.75, 100.0])
    )
    def begin(self, ageing: float, smaller_first: float) -> None:
        self.queue = BatchQueue(
            MAX_ROWS,
            MAX_BYTES,
            WEIGHTS.__getitem__,
            ageing=ageing,
            smaller_first=smaller_first,
            bulk_level=BULK,
        )
        self.smaller_first = smaller_first
        self.waiting: list[Part] = []
        self.gone: list[Part] = []
        self.now = 0.0

    @rule(
        group=groups,
        level=st.sampled_from([*WEIGHTS, BULK]),
        rows=st.integers(1, 12),
        nbytes=st.integers(0, 60),
        lasts=st.integers(0, 20),
    )
    def add(self, group: str, level: int, rows: int, nbytes: int, lasts: int) -> None:
        self.now += 1.0
        share = 2 if level == BULK else 1
        if self.rows + rows > MAX_ROWS // share or self.nbytes + nbytes > MAX_BYTES // share:
            with pytest.raises(QueueFull):
                self.queue.check_room(rows, nbytes, level)
            return
        self.queue.check_room(rows, nbytes, level)
        added = part(rows, group, level, self.now, self.now + lasts, nbytes)
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

    @precondition(lambda self: self.in_turn)
    @rule(data=st.data(), max_rows=st.integers(0, 16), until=st.integers(0, 40))
    def pack_those_that_can_wait(self, data: st.DataObject, max_rows: int, until: int) -> None:
        group = data.draw(st.sampled_from(self.in_turn)).group
        packed, late = self.queue.pack_in_time(group, max_rows, self.now, until)
        self.check_packed(packed, group, max_rows, late)
        assert all(each.deadline >= until for each in packed)
        assert all(each.deadline < until and each.rows <= max_rows for each in late)

    @precondition(lambda self: self.in_turn)
    @rule(max_rows=st.integers(1, 16))
    def take_at_the_head(self, max_rows: int) -> None:
        head = self.queue.head()
        assert head is not None
        taken = self.queue.pack(head.group, max_rows, self.now)
        self.check_packed(taken, head.group, max_rows, [])
        if head.rows <= max_rows:
            assert taken[0] is head
        self.queue.take(taken, self.now)
        self.let_go(taken)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), max_rows=st.integers(1, 16), places=st.integers(1, 16))
    def take_of_any_group_and_fill_it(
        self, data: st.DataObject, max_rows: int, places: int
    ) -> None:
        group = data.draw(st.sampled_from(self.waiting)).group
        taken: list[Part] = []
        if self.queue.group_rows(group):
            taken = self.queue.pack(group, max_rows, self.now)
            self.check_packed(taken, group, max_rows, [])
        if self.queue.bulk.group_rows(group):
            bulk = self.queue.bulk.pack(group, places, self.now)
            self.check_packed(bulk, group, places, [], levels=[BULK])
            taken = taken + bulk
        self.queue.take(taken, self.now)
        self.let_go(taken)

    def check_packed(
        self,
        packed: list[Part],
        group: object,
        max_rows: int,
        skip: list[Part],
        levels: Iterable[int] = WEIGHTS,
    ) -> None:
        assert sum(each.rows for each in packed) <= max_rows
        assert all(each.group == group for each in packed), "one group"
        assert not set(packed) & set(self.gone), "nothing is handed out twice"
        assert len(set(packed)) == len(packed)
        assert {each.level for each in packed} <= set(levels), "bulk takes no turns"
        left_out = []
        for level in levels:
            line = [each for each in self.line(level) if each.group == group and each not in skip]
            own = [each for each in packed if each.level == level]
            assert own == line[: len(own)], "in order within a level"
            left_out += line[len(own) :][:1]
        room = max_rows - sum(each.rows for each in packed)
        assert not left_out or any(each.rows > room for each in left_out), (
            "it ends only where a part does not fit"
        )

    def let_go(self, parts: list[Part]) -> None:
        for each in parts:
            self.waiting.remove(each)
            self.gone.append(each)

    def line(self, level: int) -> list[Part]:
        """What waits of a level, in the order in which it is served."""
        own = [each for each in self.waiting if each.level == level]
        return sorted(own, key=self.counts_as_come) if self.smaller_first else own

    def counts_as_come(self, each: Part) -> tuple[float, int]:
        doublings = ceil(log2(each.rows))
        return each.arrival + self.smaller_first * doublings, doublings

    @property
    def in_turn(self) -> list[Part]:
        return [each for each in self.waiting if each.level != BULK]

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
        bulk = self.queue.bulk
        assert (len(self.queue), self.queue.rows + bulk.rows) == (len(self.waiting), self.rows)
        assert self.queue.nbytes + bulk.nbytes == self.nbytes
        assert set(bulk) == {each for each in self.waiting if each.level == BULK}
        assert set(self.queue.in_turn()) == set(self.in_turn)

    @invariant()
    def the_head_is_the_first_of_its_level(self) -> None:
        head = self.queue.head()
        assert (head is None) == (not self.in_turn)
        if head is not None:
            assert head is self.line(head.level)[0]
        assert self.queue.bulk.head() is next(iter(self.line(BULK)), None)

    @invariant()
    def what_is_before_a_request_is_at_most_all_that_waits(self) -> None:
        for level in (*WEIGHTS, BULK):
            before = [self.queue.rows_ahead(level, rows, self.now) for rows in (1, 4, 16)]
            assert before == sorted(before)
            assert 0 <= before[0] <= before[-1] <= self.rows
        assert self.queue.rows_ahead(BULK, 1, self.now) == self.rows

    @invariant()
    def groups_are_counted_apart(self) -> None:
        sizes = {}
        for group in "abc":
            own = [each for each in self.in_turn if each.group == group]
            assert self.queue.group_rows(group) == sum(each.rows for each in own)
            if own:
                sizes[group] = self.queue.group_rows(group)
        for rows in (1, 8, 16):
            enough = [each.group for each in self.in_turn if sizes[each.group] >= rows]
            found = self.queue.group_of_at_least(rows)
            assert found in enough if enough else found is None
        assert self.queue.oldest() is (self.in_turn[0] if self.in_turn else None)


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestQueueAgainstAList = QueueMachine.TestCase
