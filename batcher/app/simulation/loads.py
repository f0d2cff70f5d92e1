"""When requests are sent: open loads by a schedule, closed loops of clients that await answers.

    poisson:0.7                  at random, 0.7 of the model's capacity on average
    poisson:900/s                the same with a rate in requests/s, as any load below may be given
    constant:0.7                 at even distances
    gamma:0.7,cv=3               bursts: the distances have 3 times the deviation of `poisson`
    onoff:0.7,on=100ms,off=300ms at random in phases of 100 ms on average, and nothing between
    closed:32,think=1.5ms        32 clients; each sends 1.5 ms after the answer to its last request
    trace:FILE                   as recorded: lines of seconds[,rows[,deadline[,level[,length]]]]
    poisson:0.3+closed:8         all of these at once
    closed:8@0s..5s              in these seconds alone; either end may be left out

A trace is CSV or JSON lines; `seconds` are those of the arrival, `deadline` the seconds that the
request has from then on, `length` that of a row; `length2` and `length3` are those of further free
axes. `trace:FILE,speed=2` sends twice as fast as recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from batcher.app.simulation.distributions import CHUNK, Distribution, constant, read_distribution
from batcher.app.simulation.reading import (
    Column,
    duration,
    number,
    numbers_of_file,
    split_pairs,
)
from batcher.errors import ConfigError

FORMS = (
    "poisson:0.7, poisson:900/s, constant:0.7, gamma:0.7,cv=3, onoff:0.7,on=100ms,off=300ms, "
    "closed:32,think=1.5ms, trace:FILE, several joined by +, or for a time as in "
    "closed:8@0s..5s"
)

COLUMNS = (
    Column("seconds"),
    Column("rows", 1, is_whole=True),
    Column("deadline", 0),
    Column("level", 1, is_whole=True),
    *(Column(name, 1, is_whole=True) for name in ("length", "length2", "length3")),
)
"""Numbers of a line of a trace."""


class Arrival(NamedTuple):
    """A request of an open load.

    Attributes:
        time: seconds at which it is sent.
        rows: rows, None for what the scenario says.
        allowed: seconds until its deadline, None likewise.
        level: priority, None likewise.
        lengths: sizes of the free axes of a row; empty likewise.
    """

    time: float
    rows: int | None = None
    allowed: float | None = None
    level: int | None = None
    lengths: tuple[int, ...] = ()


Draw = Callable[[float, np.random.Generator], Iterator[Arrival]]
"""Yields the requests of an open load, given its rate in requests/s."""


class OpenLoad(NamedTuple):
    """Requests that come whatever becomes of those before them.

    Attributes:
        text: how the load is written.
        share: mean rate as a share of capacity; 0 if `rate` says it.
        rate: mean rate in requests/s; 0 if `share` says it, or a trace has its own.
        draw: yields the requests, given the mean rate in requests/s.
        total: number of the requests; None for any number.
        begin: seconds at which the load begins.
        end: seconds at which it ends.
    """

    text: str
    share: float
    rate: float
    draw: Draw
    total: int | None = None
    begin: float = 0.0
    end: float = inf

    def arrivals(self, capacity: float, random: np.random.Generator) -> Iterator[Arrival]:
        """Yield the requests in order; `capacity` is that of all devices, in requests/s."""
        for arrival in self.draw(self.share * capacity or self.rate, random):
            time = arrival.time + self.begin
            if time >= self.end:
                return
            yield arrival._replace(time=time) if self.begin else arrival


class ClosedLoad(NamedTuple):
    """Clients that each send a request, await its answer, think, and send the next.

    Attributes:
        text: how the load is written.
        clients: number of clients.
        think: seconds from an answer to the next request.
        begin: seconds at which the clients begin.
        end: seconds from which no client sends a request.
    """

    text: str
    clients: int
    think: Distribution
    begin: float = 0.0
    end: float = inf


Load = tuple[OpenLoad | ClosedLoad, ...]
"""What is sent at once."""


def poisson(share: float) -> Load:
    """Return requests that come at random, `share` of the capacity on average."""
    return (OpenLoad(f"poisson:{share:g}", share, 0.0, _poisson),)


def closed(clients: int, think: float = 0.0) -> Load:
    """Return `clients` that think for `think` seconds."""
    text = f"closed:{clients}" + (f",think={think * 1e3:g}ms" if think else "")
    return (ClosedLoad(text, clients, constant(think)),)


def count_of(load: Load) -> int | None:
    """Return how many requests `load` has in all; None for any number."""
    counts = [part.total if isinstance(part, OpenLoad) else None for part in load]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(load) else None


def text_of(load: Load) -> str:
    """Return how `load` is written."""
    return "+".join(part.text for part in load)


def read_load(text: str) -> Load:
    """Return the load that `text` says.

    Raises:
        ConfigError: `text` is no load.
    """
    # a path may hold a plus sign
    parts = [text] if text.startswith("trace:") else text.split("+")
    return tuple(_read_timed(part) for part in parts)


def _read_timed(text: str) -> OpenLoad | ClosedLoad:
    load, _, times = text.rpartition("@")
    first, dots, last = times.partition("..")
    if not load or not dots:
        return _read_part(text)
    begin, end = (duration(word) if word else None for word in (first, last))
    begin, end = begin or 0.0, inf if end is None else end
    if begin >= end:
        raise ConfigError(f"load: expected a beginning before the end; got {text!r}")
    return _read_part(load)._replace(text=text, begin=begin, end=end)


def _read_part(text: str) -> OpenLoad | ClosedLoad:
    kind, colon, rest = text.partition(":")
    first, _, options = rest.partition(",")
    error = f"load: expected {FORMS}; got {text!r}"
    if not colon or not first:
        raise ConfigError(error)
    if kind == "closed":
        return _read_closed(text, first, options, error)
    known = dict(split_pairs(options, error)) if options else {}
    if kind == "trace":
        return _read_trace(text, Path(first), known, error)
    draw = _read_draw(kind, known)
    if draw is None:
        raise ConfigError(error)
    per_second = first.removesuffix("/s")
    value = number(per_second, "load")
    if known:
        unknown = ", ".join(known)
        raise ConfigError(f"load: expected no option {unknown} of {kind}; got {text!r}")
    if not value:
        raise ConfigError(f"load: expected a share or a rate above 0; got {text!r}")
    share, rate = (value, 0.0) if per_second == first else (0.0, value)
    return OpenLoad(text, share, rate, draw)


def _read_draw(kind: str, known: dict[str, str]) -> Draw | None:
    """Return how a load of `kind` draws its times, and take its options out of `known`."""
    if kind == "poisson":
        return _poisson
    if kind == "constant":
        return _constant
    if kind == "gamma":
        return _gamma(number(known.pop("cv", "3"), "cv"))
    if kind == "onoff":
        return _on_off(duration(known.pop("on", "100ms")), duration(known.pop("off", "300ms")))
    return None


def _read_closed(text: str, first: str, options: str, error: str) -> ClosedLoad:
    think = constant(0.0)
    if options:
        name, _, words = options.partition("=")
        if name != "think":
            raise ConfigError(error)
        think = read_distribution(words, "think", duration)
    clients = number(first, "clients")
    if clients < 1 or clients != int(clients):
        raise ConfigError(error)
    return ClosedLoad(text, int(clients), think)


def _read_trace(text: str, path: Path, known: dict[str, str], error: str) -> OpenLoad:
    speed = number(known.pop("speed", "1"), "speed")
    if known or not speed:
        raise ConfigError(error)
    lines = sorted(numbers_of_file(path, COLUMNS, 1), key=lambda line: float(line[0]))
    if not lines:
        names = ", ".join(column.name for column in COLUMNS)
        raise ConfigError(f"{path}: expected lines of {names}; got an empty file")
    begin = lines[0][0]
    arrivals = [
        Arrival((time - begin) / speed, _whole(rows), deadline, _whole(level), _lengths(lengths))
        for time, rows, deadline, level, *lengths in lines
    ]
    return OpenLoad(text, 0.0, 0.0, lambda rate, random: iter(arrivals), len(arrivals))


def recorded(load: Load) -> Iterator[Arrival]:
    """Yield the requests of the traces of `load`."""
    random = np.random.default_rng(0)
    for part in load:
        if isinstance(part, OpenLoad) and part.total is not None:
            yield from part.arrivals(0.0, random)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _lengths(values: list[float | None]) -> tuple[int, ...]:
    """Return the lengths that a line of a trace has, in the order of the axes."""
    return tuple(int(value) for value in values if value is not None)


def _poisson(rate: float, random: np.random.Generator) -> Iterator[Arrival]:
    return _spaced(lambda: random.exponential(1 / rate, CHUNK))


def _constant(rate: float, random: np.random.Generator) -> Iterator[Arrival]:
    return _spaced(lambda: np.full(CHUNK, 1 / rate))


def _gamma(cv: float) -> Draw:
    if cv <= 0:
        raise ConfigError("cv: expected a number above 0; 1 is the same as poisson")
    shape = 1 / cv**2
    return lambda rate, random: _spaced(lambda: random.gamma(shape, 1 / (rate * shape), CHUNK))


def _spaced(distances: Callable[[], np.ndarray]) -> Iterator[Arrival]:
    time = 0.0
    while True:
        times = time + np.cumsum(distances())
        time = float(times[-1])
        yield from map(Arrival, times.tolist())


def _on_off(on: float, off: float) -> Draw:
    """Return requests in phases whose lengths are exponential, `on` and `off` seconds on average.

    Within a phase they come at random.
    """
    if on <= 0:
        raise ConfigError("onoff: expected a phase `on` above 0s")

    def draw(rate: float, random: np.random.Generator) -> Iterator[Arrival]:
        begin, busy_rate = 0.0, rate * (on + off) / on
        while True:
            length = random.exponential(on)
            times = begin + np.sort(random.random(random.poisson(busy_rate * length))) * length
            yield from map(Arrival, times.tolist())
            begin += length + (random.exponential(off) if off else 0.0)

    return draw
