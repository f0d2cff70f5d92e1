"""What a trace of PyTorch's profiler says of copies and of allocations.

The trace is in Chrome's format: events with a category, a begin and a duration in microseconds.
CUDA's own events carry the times of the device, for all streams and threads of the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KERNEL, FILL, COPY = "kernel", "gpu_memset", "gpu_memcpy"
CALLS = ("cuda_runtime", "cuda_driver")
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
    """Return begin and end of the copies between host and device, in microseconds."""
    return spans((each for each in events if not _is_within(each)), COPY)


def computing(events: Sequence[Mapping[str, Any]]) -> list[Span]:
    """Return begin and end of all that a batch computes, in microseconds.

    Copies within the device are a part of that, such as those into the inputs of a graph.
    """
    within = spans((each for each in events if _is_within(each)), COPY)
    return [*spans(events, KERNEL), *spans(events, FILL), *within]


def _is_within(event: Mapping[str, Any]) -> bool:
    """Return whether a copy, or another event, stays within the device."""
    return "DtoD" in event.get("name", "")


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


def stalls(events: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Return how often each call that stops the device was made, from the first kernel to the last.

    Before and after that the profiler itself waits for the device.
    """
    kernels = spans(events, KERNEL)
    if not kernels:
        return Counter()
    first, last = min(kernels)[0], max(end for _, end in kernels)
    calls = (each for each in events if each.get("cat") in CALLS and first < each["ts"] < last)
    return Counter(each["name"] for each in calls if each["name"].startswith(STALLS))
