"""What is true of batches besides the reason for their size, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

from batcher.serving.monitoring.facts import Facts
from batcher.serving.monitoring.situations import CHEAPER, lost, takes_turns
from batcher.serving.monitoring.troubles import MEND, MENTIONED
from batcher.serving.monitoring.wording import counted, number, percent, several, time_text


class More(NamedTuple):
    """One more thing that is true, and what to do about it; an empty text says nothing."""

    because: str = ""
    change: str = ""


def besides(facts: Facts, situation: str) -> list[More]:
    """Return what else is true and matters."""
    return [
        _waiting(facts, situation),
        _no_waiting(facts, situation),
        _memory(facts),
        _own_limit(facts),
        _instances(facts),
        _late(facts, situation),
        _turned_away(facts),
        _shapes(facts, situation),
        _failures(facts, situation),
        _cost(facts),
    ]


def _waiting(facts: Facts, situation: str) -> More:
    """Say how long a free model waits for clients that return; full batches wait for nobody."""
    if situation == "capacity" or not facts.may_wait:
        return More()
    if not (facts.returning or facts.paused or facts.window.share("waited")):
        return More()
    if facts.paused:
        return More(
            "Clients return after their answers, but waits for all of them have not brought more "
            "answers than two half batches by turns: for a while the model waits for half of them "
            "at most."
        )
    if not facts.wait:
        return More("Clients return so soon after their answers that no wait for them is needed.")
    return More(
        f"Clients return after their answers, so a free model waits for them: until "
        f"{time_text(facts.wait)} after the batch before, never above "
        f"{time_text(facts.longest_wait)}. Such a wait came before "
        f"{percent(facts.window.share('waited'))} of the batches."
    )


def _no_waiting(facts: Facts, situation: str) -> More:
    """Say that nobody is waited for where that might bring something."""
    if not facts.is_eager or situation not in ("closed_loop", "steady"):
        return More()
    if not facts.max_delay:
        return More(
            change="max_delay_ms: 0 switches the learned wait off: without that setting, clients "
            "that wait for their answers come to share one batch where that is faster."
        )
    if facts.instances > 1:
        return More(
            f"{facts.instances} instances take from one queue, so rows are spread over them. The "
            "last free one waits for a part of a batch's time, so that they take turns: before "
            f"{percent(facts.window.share('waited'))} of the batches."
        )
    if takes_turns(facts) and not facts.returning:
        return More("Half of the clients wait while a batch with the other half runs.")
    return More()


def _memory(facts: Facts) -> More:
    if facts.ceiling_rows >= facts.model_rows:
        return More()
    return More(
        f"Batches have at most {facts.ceiling_rows} rows instead of {facts.model_rows}, because "
        "larger ones did not fit into the device's memory (learnt; it rises again slowly).",
        "Free memory of the device, or lower max_batch_size to what fits.",
    )


def _own_limit(facts: Facts) -> More:
    if facts.model_rows >= facts.max_batch_size:
        return More()
    return More(
        f"The model itself takes at most {counted(facts.model_rows, 'row')} at a time, below "
        f"max_batch_size, {facts.max_batch_size}.",
        "Export the model with a free first axis, so that its batches may be larger."
        if facts.model_rows == 1
        else "",
    )


def _instances(facts: Facts) -> More:
    if facts.alive >= facts.instances or not facts.alive:
        return More()
    return More(
        f"{facts.alive} of {facts.instances} instances take batches; the log says why the others "
        "do not."
    )


def _late(facts: Facts, situation: str) -> More:
    if situation == "deadlines" or facts.window.lost < MENTIONED:
        return More()
    return More(f"Deadlines: {lost(facts)}.")


def _turned_away(facts: Facts) -> More:
    if facts.window.turned_away < MENTIONED:
        return More()
    share = percent(facts.window.turned_away)
    return More(f"The queue was full for {share} of the rows, which were refused.")


def _shapes(facts: Facts, situation: str) -> More:
    share = facts.window.share("shape")
    if situation in ("lengths", "shapes"):
        return More()
    if facts.window.padding >= MENTIONED:
        return More(f"{percent(facts.window.padding)} of what batches hold is padding.")
    if share < MENTIONED or facts.window.padded:
        return More()
    return More(
        f"{percent(share)} of the batches left rows behind whose shape is another: there are "
        f"{facts.shapes} shapes."
    )


def _failures(facts: Facts, situation: str) -> More:
    if situation == "failing" or max(facts.window.reruns, facts.window.failures) < MENTIONED:
        return More()
    if facts.window.reruns < MENTIONED:
        return More(f"{percent(facts.window.failures)} of the batches failed.", MEND)
    return More(
        f"{percent(facts.window.reruns)} of the batches are parts of failed ones that run again.",
        MEND,
    )


def _cost(facts: Facts) -> More:
    """Say what a batch costs, by its rows."""
    if len(facts.times) < 2:
        return More()
    (few, short), (many, long) = facts.times[0], facts.times[-1]
    # sizes that ran last at warm-up, and not since under load, may look faster than smaller ones
    takes = f"takes {time_text(long)}" if long > short else "no longer"
    text = (
        f"A batch of {several(few, 'row')} takes {time_text(short)}, "
        f"one of {several(many, 'row')} {takes}"
    )
    cheaper = (short / few) / (max(short, long) / many) if short else 0.0
    if cheaper >= CHEAPER:
        return More(f"{text}: a row is {number(cheaper)} times cheaper in the larger one.")
    return More(f"{text}: large batches make a row of this model hardly cheaper.")
