"""What is compared: policies, each with a rule for requests that become late.

A policy of the server is a value of the setting `policy`, so a policy that is added to the settings
is compared without a change here. Others are comparisons, see `comparisons`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from batcher.app.simulation.comparisons.early_binding import EarlyBinding
from batcher.app.simulation.comparisons.facts import Facts
from batcher.app.simulation.comparisons.threshold import Threshold
from batcher.app.simulation.comparisons.waits import DequeueDelay, FixedWait, Stagger
from batcher.app.simulation.reading import duration, number, split_pairs
from batcher.batching.policies.policy import Policy
from batcher.config.model_settings import ModelSettings
from batcher.config.reading import Source, scalar, validate
from batcher.errors import ConfigError

Drop = Literal["early", "expired", "none"]
"""What becomes of requests that are or will be late.

early      refused at the door or dropped from the queue as soon as they cannot be answered in time
expired    dropped once their deadline has passed, as other servers do at most
none       answered late: the server is told no deadlines
"""

DROPS: tuple[Drop, ...] = get_args(Drop)
SHIPPED: tuple[str, ...] = get_args(ModelSettings.model_fields["policy"].annotation)
"""The policies of the server."""

MakePolicy = Callable[[Facts], Policy]


class Candidate(NamedTuple):
    """A policy with its settings, and a rule for late requests.

    Attributes:
        name: how the policy is written.
        settings: settings of the model that differ.
        make: makes a comparison; None for a policy of the server.
        drop: what becomes of late requests.
        binds_early: whether batches are bound while all workers are busy.
    """

    name: str
    settings: Mapping[str, Any]
    make: MakePolicy | None = None
    drop: Drop = "early"
    binds_early: bool = False


def read_candidate(text: str, drop: Drop = "early") -> Candidate:
    """Return the policy that `text` says: NAME[:VALUE][,SETTING=VALUE...], with the rule `drop`.

    Raises:
        ConfigError: `text` is no policy.
    """
    head, comma, rest = text.partition(",")
    name, colon, value = head.partition(":")
    error = f"policy: expected {expected()}, then perhaps ,SETTING=VALUE; got {text!r}"
    settings: dict[str, Any] = {}
    if comma:
        settings = {key: scalar(word) for key, word in split_pairs(rest, error)}
    make: MakePolicy | None = None
    if name in SHIPPED:
        settings = shipped_settings(name, value if colon else "") | settings
    elif name in COMPARISONS and value:
        make = COMPARISONS[name](value)
    else:
        raise ConfigError(error)
    checked_settings(settings)
    return Candidate(text, settings, make, drop, binds_early=name == "early-binding")


def shipped_settings(name: str, value: str) -> dict[str, Any]:
    """Return the settings of the server's policy `name`, with its time `value`, empty for none."""
    settings: dict[str, Any] = {"policy": name}
    if value:
        key = "slo_ms" if name in ("slo", "deferred") else "max_delay_ms"
        settings[key] = duration(value) * 1e3
    return settings


def checked_settings(settings: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a model with `settings` instead of the defaults.

    Raises:
        ConfigError: a name or a value is not one of a setting.
    """
    return validate(ModelSettings, Source(dict(settings), {(): "setting"}))


def expected() -> str:
    """Return the names of all policies, for errors and help."""
    others = [f"{name}:{form}" for name, form in FORM.items()]
    return ", ".join([*SHIPPED, *others])


COMPARISONS: dict[str, Callable[[str], MakePolicy]] = {
    "delay-from-dequeue": lambda value: _waiting(DequeueDelay, value),
    "early-binding": lambda value: _waiting(EarlyBinding, value),
    "fixed-wait": lambda value: _waiting(FixedWait, value),
    "stagger": lambda value: _waiting(Stagger, value),
    "threshold": lambda value: _threshold(value),
}
FORM = dict.fromkeys(COMPARISONS, "TIME") | {"threshold": "ROWS"}


def _waiting(policy: Callable[[Facts, float], Policy], value: str) -> MakePolicy:
    wait = duration(value)
    return lambda facts: policy(facts, wait)


def _threshold(value: str) -> MakePolicy:
    rows = round(number(value, "threshold"))
    return lambda facts: Threshold(facts, rows)
