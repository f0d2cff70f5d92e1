"""What a run of load is: its target, its traffic and its length, as one frozen value.

The value travels three ways: from a command line (`parse`), to a command line (`LoadOptions.argv`,
so that a benchmark can start the generator as a process of its own), and into the bytes of one
request (`LoadOptions.request`), built once because the generator sends the same bytes every time.
Nothing here opens a socket; files are read by a callable that is handed in.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

import numpy as np

ScheduleKind = Literal["poisson", "constant"]

_SHOWN_HEADERS = frozenset({"content-type", "accept"})


@dataclass(frozen=True)
class LoadOptions:
    """One run of load.

    Attributes:
        url: `http://host[:port]/path`. TLS is not spoken.
        closed: Closed loop: each connection sends its next request when its answer came. Otherwise
            open loop.
        schedule: How the open loop spaces its requests.
        rate: Requests per second of the open loop.
        duration: Seconds that are measured.
        warmup: Seconds of the same load before the measured ones.
        connections: Keep-alive connections. An open loop needs more than rate times latency
            (Little's law): 256 carry 10,000 requests/s at 25 ms.
        method: `None` stands for POST with a body and GET without.
        body: The request's body.
        random_body: Length in bytes of a body of random bytes (drawn from `seed`), instead of
            `body`.
        headers: Further header fields, name and value.
        timeout: Seconds that a request waits for a connection, and then again for its answer. One
            limit for both together would send requests that have hardly any time left, and blame
            the server. 5 s is longer than any answer worth waiting for.
        seed: Seeds the schedule and the random body.
        deadline_ms: Answers with status 200 later than this after the due time are not on time;
            `None`: all are.
        max_lag_ms: The run is invalid if the 99th percentile of the generator's own lag is above
            this many ms.
        realtime: Run under SCHED_FIFO (needs the privilege): the generator then takes a core
            whenever it has something to do, as a generator on another machine would. For servers
            that use every core of this one.

    Raises:
        ValueError: An attribute, or a combination of them, makes no sense.
    """

    url: str
    closed: bool = False
    schedule: ScheduleKind = "poisson"
    rate: float = 1000.0
    duration: float = 10.0
    warmup: float = 2.0
    connections: int = 256
    method: str | None = None
    body: bytes = b""
    random_body: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = 5.0
    seed: int = 0
    deadline_ms: float | None = None
    max_lag_ms: float = 2.0
    realtime: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        self._check_numbers()
        self._check_combinations()
        self._check_target()
        for name, value in self.headers:
            _check_header(name, value)

    def _check_numbers(self) -> None:
        for name in ("rate", "duration", "timeout", "max_lag_ms", "connections"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, not {getattr(self, name)}")
        for name in ("warmup", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or above and finite, not {getattr(self, name)}")
        if self.deadline_ms is not None and not 0 < self.deadline_ms < math.inf:
            raise ValueError(f"deadline_ms must be above 0 and finite, not {self.deadline_ms}")

    def _check_combinations(self) -> None:
        if self.schedule not in get_args(ScheduleKind):
            raise ValueError(
                f"schedule must be one of {get_args(ScheduleKind)}, not {self.schedule!r}"
            )
        if self.body and self.random_body is not None:
            raise ValueError("a body and a random body exclude each other")
        if self.random_body is not None and self.random_body < 0:
            raise ValueError(f"random_body must not be below 0, not {self.random_body}")
        if self.closed and self.realtime:
            raise ValueError(
                "a closed loop never rests: with realtime it would keep the server from its core"
            )

    def _check_target(self) -> None:
        if self.target.scheme != "http" or not self.target.hostname or self.target.port == 0:
            raise ValueError(f"the URL must be http://host[:port]/path, not {self.url!r}")
        if not self.url.isascii() or any(c.isspace() for c in self.url):
            raise ValueError(f"the URL must be percent-encoded: {self.url!r}")
        if self.verb in {"HEAD", "CONNECT"} or not self.verb.isalpha():
            raise ValueError(
                f"method {self.verb!r} is not supported: its answers are framed by other rules"
            )

    @property
    def target(self) -> SplitResult:
        """The URL's parts. Raises `ValueError` if it has none."""
        return urlsplit(self.url)

    @property
    def verb(self) -> str:
        """The request's method."""
        return (self.method or ("POST" if self.payload_size else "GET")).upper()

    @property
    def payload_size(self) -> int:
        """The body's length in bytes."""
        return len(self.body) if self.random_body is None else self.random_body

    @property
    def payload(self) -> bytes:
        """The body that is sent."""
        return (
            self.body
            if self.random_body is None
            else np.random.default_rng(self.seed).bytes(self.random_body)
        )

    @property
    def request(self) -> bytes:
        """The bytes of one request.

        HTTP/1.1, keep-alive; the type of the body is `application/octet-stream` unless `headers`
        say otherwise.
        """
        fields = {"host": self.target.netloc.rpartition("@")[2]}
        if self.payload_size or self.verb in {"POST", "PUT", "PATCH"}:
            fields |= {
                "content-length": str(self.payload_size),
                "content-type": "application/octet-stream",
            }
        named = {name.lower() for name, _ in self.headers}
        lines = [f"{self.verb} {self._origin_form} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if name not in named]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.payload

    @property
    def _origin_form(self) -> str:
        return (self.target.path or "/") + (f"?{self.target.query}" if self.target.query else "")

    def argv(self) -> list[str]:
        """The command line that means these options; the body is read from standard input."""
        numbers = ("rate", "duration", "warmup", "connections", "timeout", "seed", "max_lag_ms")
        words = [self.url, f"--schedule={self.schedule}", f"--method={self.verb}"]
        words += [f"--{name.replace('_', '-')}={getattr(self, name)!r}" for name in numbers]
        words += [f"--{name}" for name in ("closed", "realtime") if getattr(self, name)]
        if self.deadline_ms is not None:
            words.append(f"--deadline-ms={self.deadline_ms!r}")
        words += [f"--header={name}: {value}" for name, value in self.headers]
        if self.random_body is not None:
            words.append(f"--random-body={self.random_body}")
        return [*words, "--body=-"] if self.body else words

    def describe(self) -> dict[str, Any]:
        """What a result says of its run.

        Values that may be secret and the host's name are left out.
        """
        described: dict[str, Any] = {"mode": "closed" if self.closed else "open"}
        if not self.closed:
            described |= {
                "schedule": self.schedule,
                "rate": self.rate,
                "max_lag_ms": self.max_lag_ms,
            }
        names = ("duration", "warmup", "connections", "timeout", "seed", "deadline_ms", "realtime")
        described |= {name: getattr(self, name) for name in names}
        shown = {n: v if n.lower() in _SHOWN_HEADERS else "(set)" for n, v in self.headers}
        return described | {
            "method": self.verb,
            "target": self._origin_form,
            "body_bytes": self.payload_size,
            "headers": shown,
        }


def parse(
    arguments: Sequence[str], read_body: Callable[[str], bytes]
) -> tuple[LoadOptions, str | None]:
    """Return the options of a command line, and where the JSON is to go.

    `-` is standard output, None is nowhere.

    Args:
        arguments: The command line without the program's name. A mistake in the command line ends
            the program with status 2.
        read_body: Called with the value of `--body`, the name of a file or `-`; returns the body.
    """
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    destination = values.pop("json")
    try:
        if (source := values.pop("body")) is not None:
            values["body"] = read_body(source)
        values["headers"] = tuple(_split_header(line) for line in values["headers"])
        return LoadOptions(**values), destination
    except (ValueError, OSError) as err:
        parser.error(str(err))


def _parser() -> argparse.ArgumentParser:
    default = LoadOptions(url="http://localhost/")
    parser = argparse.ArgumentParser(
        prog="load",
        description="HTTP/1.1 load with latency counted from the scheduled time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("url", help="http://host[:port]/path")
    _add_traffic(parser.add_argument, default)
    _add_request(parser.add_argument, default)
    _add_rules(parser.add_argument, default)
    parser.add_argument(
        "--json", metavar="FILE", help="write the result there; - is standard output"
    )
    return parser


def _add_traffic(add: Callable[..., object], default: LoadOptions) -> None:
    """Add the options that say how much load there is, and for how long."""
    add(
        "--closed",
        action="store_true",
        help="each connection sends its next request when its answer came",
    )
    add(
        "--schedule",
        choices=get_args(ScheduleKind),
        default=default.schedule,
        help="spacing of the open loop",
    )
    add("--rate", type=float, default=default.rate, help="requests/s of the open loop")
    add("--duration", type=float, default=default.duration, help="seconds that are measured")
    add("--warmup", type=float, default=default.warmup, help="seconds before them that are not")
    add("--connections", type=int, default=default.connections, help="keep-alive connections")


def _add_request(add: Callable[..., object], default: LoadOptions) -> None:
    """Add the options that say what one request is."""
    add("--method", help="POST with a body, else GET, unless given")
    add("--body", metavar="FILE", help="the request's body; - reads standard input")
    add("--random-body", type=int, metavar="BYTES", help="a body of so many random bytes")
    add(
        "--header", dest="headers", action="append", default=[], metavar="'K: V'", help="repeatable"
    )
    add(
        "--timeout",
        type=float,
        default=default.timeout,
        help="s to wait for a connection, and again for the answer",
    )
    add("--seed", type=int, default=default.seed, help="seeds schedule and random body")


def _add_rules(add: Callable[..., object], default: LoadOptions) -> None:
    """Add the options that say which answers count, and which runs."""
    add(
        "--deadline-ms",
        type=float,
        help="answers 200 later than this after their due time are not on time",
    )
    add(
        "--max-lag-ms",
        type=float,
        default=default.max_lag_ms,
        help="invalid above this own lag, p99",
    )
    add("--realtime", action="store_true", help="run under SCHED_FIFO (needs the privilege)")


def _split_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(f"a header is 'Name: value', not {line!r}")
    return name.strip(), value.strip()


def _check_header(name: str, value: str) -> None:
    if not name or not name.isascii() or any(c in name + value for c in "\r\n\0") or " " in name:
        raise ValueError(f"not a header field: {name!r}: {value!r}")
    if name.lower() in {"content-length", "transfer-encoding"}:
        raise ValueError(f"{name} is set from the body")
