"""What a trace of PyTorch's profiler says of copies and of allocations.

The trace is in Chrome's format: events with a category, a begin and a duration in microseconds.
CUDA's own events carry the times of the device, for all streams and threads of the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COMPUTE, COPY, CALLS = "kernel", "gpu_memcpy", ("cuda_runtime", "cuda_driver")
STALLS = ("cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaMallocHost", "cudaDeviceSynchronize")
"""Calls that stop the device, or wait for all of it, and have no place in a steady state."""

Span = tuple[float, float]


def spans(events: Iterable[Mapping[str, Any]], category: str) -> list[Span]:
    """Return begin and end of the events of a category, in microseconds."""
    return [
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == category and "dur" in event
    ]


def host_copies(events: Iterable[Mapping[str, Any]]) -> list[Span]:
    """Return begin and end of the copies between host and device, in microseconds.

    Copies within the device are a part of what a batch computes, and nothing has to hide them.
    """
    return spans((each for each in events if "DtoD" not in each.get("name", "")), COPY)


def merged(found: Iterable[Span]) -> list[Span]:
    """Return the time that spans cover, as spans that do not touch."""
    whole: list[Span] = []
    for begin, end in sorted(found):
        if whole and begin <= whole[-1][1]:
            whole[-1] = whole[-1][0], max(end, whole[-1][1])
        else:
            whole.append((begin, end))
    return whole


def hidden_share(copies: Sequence[Span], compute: Sequence[Span]) -> float | None:
    """Return the share of the time of copies in which something computes; None without copies."""
    total = sum(end - begin for begin, end in copies)
    if not total:
        return None
    busy = merged(compute)
    hidden = 0.0
    first = 0
    for begin, end in sorted(copies):
        while first < len(busy) and busy[first][1] <= begin:
            first += 1
        for start, stop in busy[first:]:
            if start >= end:
                break
            hidden += min(end, stop) - max(begin, start)
    return hidden / total


def stalls(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how often each call that stops the device was made."""
    names = (event["name"] for event in events if event.get("cat") in CALLS)
    return Counter(name for name in names if name.startswith(STALLS))
