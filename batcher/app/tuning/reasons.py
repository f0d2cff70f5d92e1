"""Why a setting has its value, in one line, out of what was measured and simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batcher.app.tuning.choosing import Option
from batcher.app.tuning.curve import Curve
from batcher.app.tuning.subject import Changes
from batcher.config.editing import NewValue


def with_reasons(
    changes: Changes, options: Sequence[Option], deadline: float | None
) -> dict[str, NewValue]:
    """Return each of `changes`, which are those of one of `options`, with its reason.

    `deadline` is that of the user, in seconds.
    """
    chosen = next(option for option in options if option.changes == changes)
    return {
        key: NewValue(value, _reason(key, value, chosen, options, deadline))
        for key, value in changes.items()
    }


def _reason(
    key: str, value: Any, chosen: Option, options: Sequence[Option], deadline: float | None
) -> str:
    if key == "max_batch_size":
        return _of_size(value, chosen, options)
    if key == "timeout_ms":
        return f"later than {milliseconds(deadline or 0)} is too late: refused at once instead"
    if key == "torch_threads" and "instances" in chosen.changes:
        return "the cores, shared among the instances"
    if key in ("torch_threads", "instances"):
        at_once = " in each at once" if key == "instances" else ""
        return _of_setup(chosen.setup.curve, options[0].setup.curve, at_once)
    without = _simulated(options, {k: v for k, v in chosen.changes.items() if k != key}, chosen)
    if without is not None:
        return f"simulated {_numbers(chosen)}; without it {_numbers(without)}"
    return f"simulated {_numbers(chosen)}; now {_numbers(options[0])}"


def _of_size(size: int, chosen: Option, options: Sequence[Option]) -> str:
    """Say what a row costs in batches of `size` rows, and what other sizes do."""
    timing = chosen.setup.curve.at(size)
    cost = f"a row takes {milliseconds(timing.row_seconds)}" if timing is not None else ""
    others = []
    for other in (size // 2, 2 * size):
        at = chosen.setup.curve.at(other)
        if at is not None:
            others.append(f"{milliseconds(at.row_seconds)} at {other}")
    costs = ", ".join(filter(None, [cost, *others]))
    simulated = f"simulated {_numbers(chosen)}, now {_numbers(options[0])}"
    return f"{costs}; {simulated}" if costs else simulated


def _of_setup(curve: Curve, present: Curve, at_once: str) -> str:
    most = max(set(curve.sizes) & set(present.sizes))
    new, old = curve.at(most), present.at(most)
    assert new is not None
    assert old is not None
    return f"{most} rows take {milliseconds(new.seconds)}{at_once}; {milliseconds(old.seconds)} now"


def _simulated(
    options: Sequence[Option], changes: Mapping[str, Any], like: Option
) -> Option | None:
    found = (each for each in options if each.changes == changes and each.setup is like.setup)
    return next(found, None)


def _numbers(option: Option) -> str:
    result = option.result
    return f"{result.goodput:.0f}/s, p99 {milliseconds(result.latency.p99)}"


def milliseconds(seconds: float) -> str:
    """Return `seconds` as milliseconds with three digits."""
    return f"{seconds * 1e3:.3g} ms"
