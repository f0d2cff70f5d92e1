"""The benchmark of hostile clients, without servers: its kinds, its bodies and its verdict."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.hostile import MAX_GROWTH_BYTES, P99_MS, WORST_MS, _row
from benchmarks.hostile_kinds.kind import Kind, repeated
from benchmarks.hostile_kinds.memory import memory_of
from benchmarks.hostile_kinds.table import all_kinds

START = 100 << 20
KIND = Kind("any", lambda: lambda target: "200")


def found(latencies: list[float], failures: list[str] | None = None) -> dict[str, Any]:
    probe = {"latencies": latencies, "failures": failures or []}
    return {"lags": [0.0], "livez": probe, "small": probe}


def out_of_bounds(measured: dict[str, Any], highest: int = START, after: int = START) -> str:
    row = _row(KIND, measured, {"200": 1}, 1.0, (START, highest, after))
    return str(row["out of bounds"])


def test_there_are_many_kinds_and_each_has_a_name_of_its_own() -> None:
    names = [kind.name for kind in all_kinds()]
    assert len(names) >= 30
    assert len(set(names)) == len(names)


def test_a_body_is_filled_up_to_its_limit_and_no_further() -> None:
    body = repeated(b"[", b"10", b"]", limit=12)
    assert body == b"[10,10,10]"


def test_latencies_and_memory_at_their_bounds_are_within_them() -> None:
    latencies = [0.001] * 98 + [P99_MS / 1e3] + [WORST_MS / 1e3]
    assert out_of_bounds(found(latencies), START + MAX_GROWTH_BYTES, START * 11 // 10) == ""


def test_each_figure_beyond_its_bound_is_named() -> None:
    late = found([0.001] * 98 + [P99_MS / 1e3 + 0.001] * 2)
    assert out_of_bounds(late) == "livez p99, small p99"
    worst = found([0.001] * 199 + [WORST_MS / 1e3 + 0.001])
    assert out_of_bounds(worst) == "livez worst, small worst"
    assert out_of_bounds(found([0.001]), START + MAX_GROWTH_BYTES + 1) == "memory"
    assert out_of_bounds(found([0.001]), after=START * 12 // 10) == "memory after"


def test_a_small_request_that_is_not_answered_200_is_out_of_bounds() -> None:
    assert out_of_bounds(found([0.001], ["503"])) == "livez 503, small 503"


def test_memory_of_a_process_grows_with_what_it_holds() -> None:
    before = memory_of(os.getpid())
    held = b"x" * (64 << 20)
    assert memory_of(os.getpid()) - before > 60 << 20
    file = os.memfd_create("held")
    os.write(file, held[: 32 << 20])
    with_file = memory_of(os.getpid())
    os.close(file)
    assert with_file - memory_of(os.getpid()) > 30 << 20
