"""From a tally to a result: percentiles, the verdict on the generator itself, JSON and words.

Percentiles are observed values (nearest rank), not interpolated ones. Percentiles rest on answers
alone; requests without an answer are counted by kind. A result speaks of cores and versions, never
of host names or places in a file system.
"""

from __future__ import annotations

import os
import platform
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson

from benchmarks.loadgen.tally import ERRORS, UNSENT, Tally

_PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9))
_REFUSALS = (429, 503, 504)  # statuses that say: not now
_BUSY_CORE_SHARE = 0.9  # above this share of a core a run measures its generator, too


@dataclass(frozen=True)
class LoadResult:
    """What a run measured; its fields are the keys of the JSON.

    Every dictionary of times is in ms and has the keys p50, p90, p95, p99, p99.9, max and mean, or
    is empty if there was nothing to measure. Counts are of requests due in the measured window.

        scheduled  == sent + errors["connect"] + errors["wait_timeout"]
        sent       == answered + unanswered
        unanswered == errors["timeout"] + errors["reset"] + errors["protocol"]

    Attributes:
        date: UTC, ISO 8601.
        machine: Cores the generator may use, versions.
        configuration: The options, as `LoadOptions.describe` gives them.
        statuses: Answers by status.
        errors: Requests without an answer, by kind (`tally.ERRORS`).
        offered_rate: Requests due per second.
        achieved_rate: Answers per second that arrived in the window, with any status.
        achieved_rate_200: The same with status 200.
        on_time_rate: Requests due in the window and answered 200 within `deadline_ms` of their due
            time, per second.
        latency_ms: From the due time to the last byte of the answer, all statuses.
        latency_200_ms: The same with status 200.
        latency_refused_ms: The same with status 429, 503 or 504.
        lag_ms: From the due time until the generator turned to the request; empty for a closed
            loop.
        connection_wait_ms: From the generator's turn to a request until a connection was free, 0
            included; empty for a closed loop.
        generator_cores: Share of a core the generator used.
        valid: Whether the generator kept its schedule.
        invalid_reason: What the generator did instead; None for a valid run.
    """

    date: str
    machine: dict[str, Any]
    configuration: dict[str, Any]
    scheduled: int
    sent: int
    answered: int
    unanswered: int
    statuses: dict[str, int]
    errors: dict[str, int]
    offered_rate: float
    achieved_rate: float
    achieved_rate_200: float
    on_time_rate: float
    latency_ms: dict[str, float]
    latency_200_ms: dict[str, float]
    latency_refused_ms: dict[str, float]
    lag_ms: dict[str, float]
    connection_wait_ms: dict[str, float]
    generator_cores: float
    valid: bool
    invalid_reason: str | None

    def to_json(self) -> bytes:
        """The result as indented JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, text: bytes) -> LoadResult:
        """Read what `to_json` wrote. Raises `ValueError` or `TypeError` for anything else."""
        return cls(**orjson.loads(text))


def percentiles(seconds: array[float]) -> dict[str, float]:
    """Percentiles (nearest rank), maximum and mean in ms of times in seconds.

    Empty if there are none.
    """
    if not seconds:
        return {}
    times = np.sort(np.frombuffer(seconds, dtype=np.float64)) * 1e3
    ranks = {
        name: max(int(np.ceil(times.size * share / 100.0)) - 1, 0) for name, share in _PERCENTILES
    }
    values = {name: times[rank] for name, rank in ranks.items()} | {
        "max": times[-1],
        "mean": times.mean(),
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def verdict(scheduled: int, lag_ms: Mapping[str, float], max_lag_ms: float) -> str | None:
    """Why a run says nothing about the server, or `None` if it does."""
    if not scheduled:
        return "no request was due in the measured window"
    p99 = lag_ms.get("p99", 0.0)
    if p99 > max_lag_ms:
        return f"the generator lagged its own schedule: p99 {p99:.3f} ms, allowed {max_lag_ms:g} ms"
    return None


def conclude(
    tally: Tally, configuration: dict[str, Any], max_lag_ms: float, generator_cores: float
) -> LoadResult:
    """The result of a run that has settled.

    Raises:
        AssertionError: A request is unaccounted for, or was counted twice.
    """
    _check_account(tally)
    seconds = tally.end - tally.begin
    is_open = configuration["mode"] == "open"
    lag = percentiles(tally.lags) if is_open else {}
    reason = verdict(tally.scheduled, lag, max_lag_ms)
    every_answer = sum(tally.latencies.values(), array("d"))
    good = tally.latencies.get(200, array("d"))
    deadline = configuration["deadline_ms"]
    on_time = len(good) if deadline is None else sum(time <= deadline / 1e3 for time in good)
    return LoadResult(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        configuration=configuration,
        scheduled=tally.scheduled,
        sent=tally.sendings,
        answered=tally.answers,
        unanswered=tally.sendings - tally.answers,
        statuses={str(status): len(tally.latencies[status]) for status in sorted(tally.latencies)},
        errors={str(kind): count for kind, count in tally.errors.items()},
        offered_rate=round(tally.scheduled / seconds, 2),
        achieved_rate=round(sum(tally.in_window.values()) / seconds, 2),
        achieved_rate_200=round(tally.in_window.get(200, 0) / seconds, 2),
        on_time_rate=round(on_time / seconds, 2),
        latency_ms=percentiles(every_answer),
        latency_200_ms=percentiles(good),
        latency_refused_ms=percentiles(
            sum((tally.latencies[s] for s in _REFUSALS if s in tally.latencies), array("d"))
        ),
        lag_ms=lag,
        connection_wait_ms=percentiles(tally.waits) if is_open else {},
        generator_cores=round(generator_cores, 3),
        valid=reason is None,
        invalid_reason=reason,
    )


def render(result: LoadResult) -> str:
    """A result in words, the verdict first and last if it is bad."""
    loud = [f"!!! INVALID RUN: {result.invalid_reason}. Do not use these figures. !!!"] * (
        not result.valid
    )
    lines = [
        "  ".join(f"{key}={value}" for key, value in result.configuration.items()),
        f"requests     {result.scheduled} scheduled, {result.sent} sent, {result.answered} "
        "answered, "
        f"{result.unanswered} unanswered",
        f"statuses     {_counts(result.statuses)}",
        f"errors       {_counts(result.errors)}",
        f"rate         {result.offered_rate:.1f}/s offered, {result.achieved_rate:.1f}/s answered, "
        f"{result.achieved_rate_200:.1f}/s with status 200",
        f"latency      {_times(result.latency_ms)}",
        f"  status 200 {_times(result.latency_200_ms)}",
        f"conn. wait   {_times(result.connection_wait_ms)}",
        f"own lag      {_times(result.lag_ms)}",
        f"generator    {result.generator_cores:.2f} of a core, {result.machine['cores']} usable",
    ]
    return "\n".join([*loud, *lines, *_remarks(result), *loud])


def _check_account(tally: Tally) -> None:
    unsent = sum(tally.errors[kind] for kind in UNSENT)
    assert tally.outstanding == 0, (
        f"{tally.outstanding} of {tally.scheduled} requests are unaccounted for"
    )
    assert tally.scheduled == tally.sendings + unsent, (
        f"{tally.scheduled} != {tally.sendings} sent + {unsent} unsent"
    )


def _machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "httptools": version("httptools"),
    }


def _remarks(result: LoadResult) -> list[str]:
    remarks = [
        f"note         {count} x {kind}: {ERRORS[kind]}" for kind, count in _kinds(result) if count
    ]
    if result.generator_cores > _BUSY_CORE_SHARE:
        remarks.append(
            "note         the generator is at its own limit: the server may be faster than this"
        )
    return remarks


def _kinds(result: LoadResult) -> list[tuple[Any, int]]:
    return [(kind, result.errors[kind]) for kind in ERRORS]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key}: {count}" for key, count in counts.items() if count) or "none"


def _times(times: Mapping[str, float]) -> str:
    return (
        "  ".join(f"{name} {value:.3f}" for name, value in times.items()) + " ms" if times else "-"
    )
