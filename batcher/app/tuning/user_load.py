"""The load that a model is tuned for: a rate, clients that await their answers, or a trace.

A trace is a file as `batcher simulate` reads it, or lines of the access log: when a request came is
then `time`, at which it was answered, less `ms`. Lines about other models are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from batcher.app.simulation.distributions import Distribution, constant
from batcher.app.simulation.loads import Arrival, ClosedLoad, Draw, Load, OpenLoad, read_load
from batcher.errors import ConfigError


class UserLoad(NamedTuple):
    """What the model's clients do.

    Attributes:
        load: when requests are sent.
        text: the load in words.
        deadline: seconds after which an answer is of no use; None for any time.
        rows: rows of a request.
    """

    load: Load
    text: str
    deadline: float | None = None
    rows: Distribution = constant(1)

    @property
    def is_closed(self) -> bool:
        """Whether all requests come from clients that await their answers."""
        return all(isinstance(part, ClosedLoad) for part in self.load)


def read_user_load(rate: float | None, clients: int | None, trace: Path | None, model: str) -> Load:
    """Return the load of `model` that options say.

    Raises:
        ConfigError: no option says a load, or the trace cannot be read.
    """
    parts: Load = ()
    if rate is not None:
        parts += read_load(f"poisson:{rate:g}/s")
    if clients is not None:
        parts += read_load(f"closed:{clients}")
    if trace is not None:
        parts += (access_log_load(trace, model),) if _is_access_log(trace) else _read_trace(trace)
    if not parts:
        raise ConfigError(
            "expected the load to tune for: --rate 500 for requests/s, --clients 32 for clients "
            "that await their answers, or --trace FILE; got none of these"
        )
    return parts


def words_of(rate: float | None, clients: int | None, trace: Path | None) -> str:
    """Return the load that options say, in words."""
    words = [f"{rate:g} requests/s"] if rate is not None else []
    words += [f"{clients} clients that await their answers"] if clients is not None else []
    words += [f"the requests of {trace.name}"] if trace is not None else []
    return " and ".join(words)


def scaled(load: Load, factor: float) -> Load:
    """Return `load` with `factor` times as many requests a second, or clients."""
    return tuple(_scaled(part, factor) for part in load)


def without_lengths(load: Load) -> Load:
    """Return `load` without the lengths of its traces, for rows that are made beforehand."""
    return tuple(
        part if isinstance(part, ClosedLoad) else part._replace(draw=_shapeless(part.draw))
        for part in load
    )


def _shapeless(draw: Draw) -> Draw:
    return lambda rate, random: (each._replace(lengths=()) for each in draw(rate, random))


def _scaled(part: OpenLoad | ClosedLoad, factor: float) -> OpenLoad | ClosedLoad:
    if isinstance(part, ClosedLoad):
        return part._replace(clients=max(round(part.clients * factor), 1))
    if part.rate:
        return part._replace(rate=part.rate * factor)

    def draw(rate: float, random: np.random.Generator) -> Iterator[Arrival]:
        for arrival in part.draw(rate, random):
            yield arrival._replace(time=arrival.time / factor)

    return part._replace(draw=draw)


def _read_trace(path: Path) -> Load:
    if not path.is_file():
        raise ConfigError(f"--trace: expected a file; there is no {path}")
    return read_load(f"trace:{path}")


def _is_access_log(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"time", "ms"} <= first.keys()


def access_log_load(path: Path, model: str) -> OpenLoad:
    """Return the requests for `model` that lines of the access log in `path` tell of.

    Raises:
        ConfigError: there are none.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    times = sorted(time for line in lines if (time := _arrival(line, model)) is not None)
    if not times:
        raise ConfigError(
            f"--trace: expected lines of the access log about model {model}; {path} has none"
        )
    arrivals = [Arrival(time - times[0]) for time in times]
    text = f"trace:{path}"
    return OpenLoad(text, 0.0, 0.0, lambda rate, random: iter(arrivals), len(arrivals))


def _arrival(line: str, model: str) -> float | None:
    """Return when the request of a line came, in seconds; None for a line of something else."""
    try:
        fields: Any = json.loads(line)
        if fields["model"] != model or fields.get("method", "POST") != "POST":
            return None
        return datetime.fromisoformat(fields["time"]).timestamp() - float(fields["ms"]) / 1e3
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
