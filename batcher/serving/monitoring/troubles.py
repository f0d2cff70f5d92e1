"""Words for batches that fail, are refused, or that nobody takes."""

from __future__ import annotations

from batcher.serving.monitoring.facts import Facts
from batcher.serving.monitoring.wording import counted, number, percent

MUCH = 0.2
"""Share of batches or rows from which something is the reason and not an exception."""

MENTIONED = 0.01
"""Share of batches or rows from which something is worth a sentence."""

MEND = "Mend the model or the requests at fault: the server's log says what was raised."


def average(facts: Facts) -> str:
    """Say how many rows batches have."""
    window = facts.window
    return f"Batches average {number(window.rows_per_batch)} of {facts.ceiling_rows} rows"


def instances_lost(facts: Facts) -> str:
    """Say that nobody takes batches."""
    return (
        f"No batch is sent, because {facts.alive} of {facts.instances} instances take batches: "
        "the log says why."
    )


def refused(facts: Facts) -> str:
    """Say why no batch was sent, though requests came."""
    reasons = facts.window.refused.items()
    rows_refused = ", ".join(f"{counted(rows, 'row')} by {reason}" for reason, rows in reasons)
    if not rows_refused and not facts.window.expired:
        return "No batch was sent lately: the log says what became of the requests before."
    lost = rows_refused or f"{counted(facts.window.expired, 'row')} by their deadlines"
    return f"No batch was sent, because every request was refused or dropped: {lost}."


def fails(facts: Facts) -> bool:
    """Return whether much of what was asked for has failed in the model's own code."""
    in_hook = not facts.window.seconds and facts.hook_exceptions > 0
    return in_hook or max(facts.window.reruns, facts.window.failures) >= MUCH


def failing(facts: Facts) -> str:
    """Say how much has failed."""
    if not facts.window.batches:
        raised = counted(facts.hook_exceptions, "exception")
        return f"No batch was sent: preprocess has raised {raised}."
    if facts.window.reruns < facts.window.failures:
        return f"{average(facts)}, and {percent(facts.window.failures)} of them failed."
    share, failed = percent(facts.window.reruns), counted(facts.window.failed, "batch")
    return f"{average(facts)}, and {share} of them are parts of failed ones: {failed} failed."


def mend(facts: Facts) -> list[str]:
    """Say what to do about it."""
    return [MEND]
