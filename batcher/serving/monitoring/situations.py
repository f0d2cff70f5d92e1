"""The reasons for batches to be as they are, in the order in which they are looked for.

The first one that holds is the reason. The order is that of causes: a batch that could not grow by
its shape is not small because the model was idle.

    situation        batches are as they are because
    not_ready        the model does not serve
    instances_lost   no instance of it takes batches
    failing          batches fail, or `preprocess` does before there is a batch
    no_traffic       nothing was asked for
    refused          every request was refused
    running          the first batch still runs
    capacity         they are full, and the model is always busy
    deadlines        much cannot be answered in time, so it is not in them
    lengths          rows of unequal length, which are padded, are cut as takes the least time
    shapes           rows of different shapes cannot share one
    loop             the server's own loop has no time for more requests
    full             they are full, though the model is not always busy
    large_requests   two requests do not fit into one batch
    delay            policy `delay` waits so long and no longer
    deferred         policy `deferred` starts them as late as their deadlines allow
    closed_loop      clients wait for their answers, and there are so many of them
    bulk             only bulk requests come
    sparse           the model is free when requests come
    steady           they hold what comes while the batch before runs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from batcher.serving.monitoring.facts import Facts
from batcher.serving.monitoring.troubles import (
    MENTIONED,
    MUCH,
    average,
    failing,
    fails,
    instances_lost,
    mend,
    refused,
)
from batcher.serving.monitoring.wording import counted, number, percent, several, time_text

MOST = 0.5
"""Share of the batches that are most of them."""

FULL = 0.7
"""Part of the most rows from which batches count as full: requests of several rows leave gaps."""

BUSY = 0.85
"""Share of the time from which the model has no time for more."""

LOOP_BUSY = 0.7
"""Share of the time from which the loop has none: besides, it waits for the interpreter lock."""

FREE = 0.6
"""Share of the time below which the model is mostly free when a request comes."""

AT_ONCE = 0.25
"""Part of a batch's time: requests that come at random while the model is busy wait longer."""

TURNS = 0.85
"""Part of a batch's time: requests that come at random do not wait so long for the next batch."""

CHEAPER = 1.1
"""Times that a row must get cheaper by a larger batch to be worth a change."""


class Situation(NamedTuple):
    """A reason for batches to be as they are.

    Attributes:
        name: one word for programs.
        holds: whether this is the reason, if none of the situations before is.
        why: says so in one sentence.
        change: says what to change.
    """

    name: str
    holds: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    change: Callable[[Facts], list[str]]


def _idle(facts: Facts) -> str:
    return f"the model is idle {percent(1 - facts.window.busy)} of the time"


def _busy(facts: Facts) -> str:
    return f"the model is busy {percent(facts.window.busy)} of the time"


def _rate(facts: Facts) -> str:
    return f"{number(facts.window.rows / facts.window.seconds)} rows/s"


def _nothing_wrong(facts: Facts) -> str:
    is_well = facts.alive >= facts.instances and facts.window.failures < MENTIONED
    return "; nothing is wrong" if is_well else ""


def _nothing(facts: Facts) -> list[str]:
    return []


def _batches_are_full(facts: Facts) -> bool:
    rows = facts.window.rows_per_batch
    return facts.window.share("full") >= MOST and rows >= FULL * facts.ceiling_rows


def _not_ready(facts: Facts) -> str:
    return f"The model does not serve ({facts.not_ready}), so no batches are sent."


def _pipeline(facts: Facts) -> str:
    names = ", ".join(facts.steps or ())
    asked = f"its steps ask {names}, whose own batches are explained there" if names else ""
    return f"A pipeline has no batches of its own{': ' if asked else ''}{asked}."


def _no_traffic(facts: Facts) -> str:
    return "No request has come yet, so there are no batches to explain."


def _running(facts: Facts) -> str:
    return f"The first batch still runs: {counted(facts.running, 'row')}."


def _capacity(facts: Facts) -> str:
    return (
        f"{average(facts)} because they are full, and {_busy(facts)}: "
        f"capacity is reached, at {_rate(facts)}."
    )


def _grow(facts: Facts) -> list[str]:
    change = [
        "More rows a second need a faster model (compile: aoti, a GPU, fewer bits), or more "
        "instances of it where a device or cores are free."
    ]
    full, largest = _known(facts), facts.ceiling_rows == facts.max_batch_size
    gain = 2 * full / facts.double if facts.double and full else 0.0
    if largest and facts.model_rows >= facts.ceiling_rows and gain >= CHEAPER:
        change.append(
            f"Raise max_batch_size: twice {facts.ceiling_rows} rows are likely to take "
            f"{facts.double / full:.2g} times as long."
        )
    return change


def _known(facts: Facts) -> float:
    """Return the seconds of the largest batch, if one of about that size is known, else 0."""
    rows, seconds = facts.times[-1] if facts.times else (0.0, 0.0)
    return seconds if rows >= FULL * facts.ceiling_rows else 0.0


def _full(facts: Facts) -> str:
    return (
        f"{average(facts)} because they are full, though {_idle(facts)}: "
        f"many rows come at once, and pauses follow{_nothing_wrong(facts)}."
    )


def _fits_alone(facts: Facts) -> bool:
    window = facts.window
    return window.share("full") >= MOST and 2 * window.rows_per_request > facts.ceiling_rows


def _large_requests(facts: Facts) -> str:
    rows = number(facts.window.rows_per_request)
    return f"{average(facts)} because requests of {rows} rows do not fit together into one batch."


def _smaller_requests(facts: Facts) -> list[str]:
    return [f"Send at most {max(facts.ceiling_rows // 2, 1)} rows a request, or few rows in each."]


def _many_lengths(facts: Facts) -> bool:
    return facts.window.padded > 0 and _many_shapes(facts)


def _cut(facts: Facts) -> str:
    share = percent(facts.window.share("shape"))
    return (
        f"{average(facts)} because rows of unequal length are cut into the batches that take the "
        f"least time together: {share} of the batches left rows of other lengths behind, and "
        f"{percent(facts.window.padding)} of what batches hold is padding{_nothing_wrong(facts)}."
    )


def _many_shapes(facts: Facts) -> bool:
    return facts.window.share("shape") >= MUCH and not _batches_are_full(facts)


def _unlike(facts: Facts) -> str:
    share = percent(facts.window.share("shape"))
    return (
        f"{average(facts)} because rows of different shapes cannot share a batch: there are "
        f"{facts.shapes} shapes, and {share} of the batches left rows of other shapes behind."
    )


def _pad(facts: Facts) -> list[str]:
    return ["Give rows one of few shapes: pad or resize them to a few sizes before they are sent."]


def _too_late(facts: Facts) -> bool:
    window = facts.window
    # policy deferred starts every batch so, and nothing is wrong
    early = window.share("deadline") if facts.policy == "delay" else 0.0
    return window.lost >= MUCH or early >= MUCH


def _deadlines(facts: Facts) -> str:
    return f"{average(facts)} because deadlines are tight: {lost(facts)}, and {_busy(facts)}."


def lost(facts: Facts) -> str:
    """Return what deadlines have cost."""
    window = facts.window
    if window.lost < MENTIONED:
        return f"{percent(window.share('deadline'))} of the batches were sent early to be in time"
    return f"{percent(window.lost)} of the rows were refused or dropped as too late to be answered"


def _relax(facts: Facts) -> list[str]:
    full = _known(facts)
    took = f" A batch of {facts.ceiling_rows} rows takes {time_text(full)}." if full else ""
    return [
        f"Allow longer deadlines, or a smaller max_batch_size, which makes batches shorter.{took}"
    ]


def _delayed(facts: Facts) -> bool:
    return facts.policy == "delay" and facts.window.share("waited") >= MOST


def _delay(facts: Facts) -> str:
    wait = time_text(facts.max_delay)
    return (
        f"{average(facts)} because policy delay sends what is there when the oldest request has "
        f"waited {wait} (max_delay_ms), and {_idle(facts)}."
    )


def _other_policy(facts: Facts) -> list[str]:
    if facts.window.busy >= FREE:
        return ["A longer max_delay_ms makes larger batches, and every answer later."]
    return [
        "Policy eager answers sooner: it waits for nobody while the model is free, and batches "
        "grow by themselves when more requests come."
    ]


def _deferred(facts: Facts) -> str:
    return (
        f"{average(facts)} because policy deferred starts each at the last moment that meets its "
        f"deadlines, {time_text(facts.slo)} (slo_ms) or less, and {_idle(facts)}: that time is "
        "left to other models."
    )


def _sooner(facts: Facts) -> list[str]:
    return ["Policy slo answers sooner, and takes more of the device: in smaller batches."]


def _loop_is_full(facts: Facts) -> bool:
    window = facts.window
    return window.loop_busy >= LOOP_BUSY and window.busy < min(window.loop_busy, BUSY)


def _loop(facts: Facts) -> str:
    return (
        f"{average(facts)}, and {_idle(facts)} because the loop is the bottleneck, not the model: "
        "reading requests and writing answers keeps the loop busy "
        f"{percent(facts.window.loop_busy)} of the time."
    )


def _relieve(facts: Facts) -> list[str]:
    return [
        "Make requests cheaper: several rows in one request, raw bytes or .npy instead of JSON, "
        "kept connections. Or give the server more of the machine, or run more servers."
    ]


def _clients_wait(facts: Facts) -> bool:
    """Return whether requests come as they cannot by chance: when the batch before has ended."""
    window = facts.window
    if window.busy < FREE or window.share("full") >= MUCH:
        return False
    if facts.returning or facts.paused:
        return True
    queued = window.queued / window.batch_s if window.batch_s else 0.0
    return queued <= AT_ONCE * window.busy or takes_turns(facts)


def takes_turns(facts: Facts) -> bool:
    """Return whether half of the clients wait while a batch with the other half runs."""
    window = facts.window
    alone = facts.instances == 1 and facts.is_eager and window.parts_per_batch > 1
    return alone and TURNS * window.batch_s <= window.queued <= window.batch_s / TURNS


def _closed_loop(facts: Facts) -> str:
    at_once = several(max(facts.window.at_once, 1.0), "request")
    return (
        f"{average(facts)} because requests come from few clients in closed loop, each of which "
        f"waits for its answer before it sends again: the model has about {at_once} at a time, and "
        f"{_busy(facts)}."
    )


def _more_clients(facts: Facts) -> list[str]:
    return [
        "For larger batches send more at once: more clients, AsyncClient, or several rows in one "
        "request."
    ]


def _bulk(facts: Facts) -> str:
    return f"{average(facts)} because nearly all requests are of priority bulk, which comes last."


def _sparse(facts: Facts) -> str:
    together = facts.window.parts_per_batch
    come = "arrive one at a time" if together < 1.5 else f"arrive about {number(together)} at once"
    if facts.window.rows_per_request >= 1.5:
        come += f", each of about {number(facts.window.rows_per_request)} rows,"
    return (
        f"{average(facts)} because requests {come} and {_idle(facts)}: "
        f"more concurrency would fill them{_nothing_wrong(facts)}."
    )


def _steady(facts: Facts) -> str:
    return (
        f"{average(facts)} because each holds the rows that came while the batch before ran: "
        f"{_rate(facts)} come, and {_busy(facts)}. Batches grow by themselves with the load"
        f"{_nothing_wrong(facts)}."
    )


SITUATIONS: Sequence[Situation] = (
    Situation("not_ready", lambda facts: bool(facts.not_ready), _not_ready, _nothing),
    Situation("pipeline", lambda facts: facts.steps is not None, _pipeline, _nothing),
    Situation("instances_lost", lambda facts: not facts.alive, instances_lost, _nothing),
    Situation("failing", fails, failing, mend),
    Situation("no_traffic", lambda facts: not facts.window.seconds, _no_traffic, _nothing),
    Situation(
        "refused",
        lambda facts: not facts.window.batches and not facts.running,
        refused,
        _nothing,
    ),
    Situation(
        "running",
        lambda facts: not facts.window.batch_s and facts.running > 0,
        _running,
        _nothing,
    ),
    Situation(
        "capacity",
        lambda facts: _batches_are_full(facts) and facts.window.busy >= BUSY,
        _capacity,
        _grow,
    ),
    Situation("deadlines", _too_late, _deadlines, _relax),
    Situation("lengths", _many_lengths, _cut, _nothing),
    Situation("shapes", _many_shapes, _unlike, _pad),
    Situation("loop", _loop_is_full, _loop, _relieve),
    Situation("full", _batches_are_full, _full, _nothing),
    Situation("large_requests", _fits_alone, _large_requests, _smaller_requests),
    Situation("delay", _delayed, _delay, _other_policy),
    Situation(
        "deferred",
        lambda facts: facts.policy == "deferred" and facts.window.share("deadline") >= MOST,
        _deferred,
        _sooner,
    ),
    Situation("closed_loop", _clients_wait, _closed_loop, _more_clients),
    Situation("bulk", lambda facts: facts.window.share("bulk") >= MOST, _bulk, _nothing),
    Situation("sparse", lambda facts: facts.window.busy < FREE, _sparse, _nothing),
    Situation("steady", lambda facts: True, _steady, _nothing),
)
