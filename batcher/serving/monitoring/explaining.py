"""Why the batches of a model are as they are, in words: facts in, sentences out.

The first situation of SITUATIONS that holds says why (`situations`). What else is true and matters
follows (`besides`): waits for clients, memory, deadlines, what a batch costs. Then comes what to
change, if anything.
"""

from __future__ import annotations

from typing import NamedTuple

from batcher.serving.monitoring.besides import besides
from batcher.serving.monitoring.facts import Facts
from batcher.serving.monitoring.situations import SITUATIONS
from batcher.serving.monitoring.wording import time_text

LONG_AGO_S = 3.0
"""Seconds without traffic from which the explanation says that it is of a time before."""

NOT_OF_BATCHES = ("not_ready", "pipeline", "no_traffic")
"""Situations in which there are no batches, of which something else might be true."""


class Explanation(NamedTuple):
    """Why batches are as they are.

    Attributes:
        situation: the reason, as one word for programs.
        because: the reason and what else matters, as sentences; the first one says why.
        change: what to change for larger batches or more answers; empty if nothing is wrong.
    """

    situation: str
    because: list[str]
    change: list[str]


def explain(facts: Facts) -> Explanation:
    """Return why batches are as they are."""
    situation = next(each for each in SITUATIONS if each.holds(facts))
    because, change = [situation.why(facts)], situation.change(facts)
    window = facts.window
    if situation.name not in NOT_OF_BATCHES:
        if window.ended >= LONG_AGO_S:
            ended, seconds = time_text(window.ended), time_text(window.seconds)
            because.append(f"No request has come for {ended}; this is about {seconds} before that.")
        for more in besides(facts, situation.name):
            because += [more.because] if more.because else []
            change += [more.change] if more.change else []
    return Explanation(situation.name, because, change)
