"""The account of requests: each request must be answered once, rightly or with its own error.

Every request carries a number of its own, and a model answers

    y = 2 * number + sum of the bytes of the model's name

So the answer to another request, or of another model, is noticed.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import numpy as np

ANSWER_GRACE_S = 10.0
"""Seconds behind its deadline after which a request counts as never answered. A loaded machine may
stand still for some seconds.
"""

NUMBERS = count(1)  # the rows of a warm-up are zeros


@dataclass(frozen=True)
class Load:
    """What is asked of one model.

    Attributes:
        model: name of the model.
        connections: number of clients.
        marked: whether rows carry the mark at which models fail.
        pipelined: requests that a client sends without waiting for answers.
        rate: requests/s of all clients together, sent on a schedule; with None a client sends
            whenever an answer came.
        timeout_ms: `X-Timeout-Ms` of each request; None leaves the header out.
        identified: whether each request has an `X-Request-Id` of its own, which errors must carry
            too.
    """

    model: str
    connections: int = 8
    marked: bool = False
    pipelined: int = 1
    rate: float | None = None
    timeout_ms: int | None = None
    identified: bool = False

    @property
    def key(self) -> float:
        """The number that the model adds to each answer."""
        return float(sum(self.model.encode()))

    @property
    def wait_s(self) -> float:
        """Seconds after which a request counts as never answered."""
        return (30.0 if self.timeout_ms is None else self.timeout_ms / 1e3) + ANSWER_GRACE_S


@dataclass
class Sent:
    """A request under way."""

    load: Load
    number: int = field(default_factory=NUMBERS.__next__)
    at: float = field(default_factory=time.monotonic)

    @property
    def data(self) -> bytes:
        """The bytes of the request."""
        lines = [
            f"POST /models/{self.load.model}/predict HTTP/1.1",
            "Host: h",
            "Content-Type: application/octet-stream",
        ]
        lines += [f"X-Timeout-Ms: {self.load.timeout_ms}"] * (self.load.timeout_ms is not None)
        lines += [f"X-Request-Id: {self.number}"] * self.load.identified
        head = "\r\n".join([*lines, "Content-Length: 16", "", ""]).encode()
        return head + struct.pack("<qq", self.number, self.load.marked)

    def is_right(self, body: bytes) -> bool:
        """Return whether `body` is the answer to this request and to no other."""
        rows = np.frombuffer(body, "<f8") if len(body) % 8 == 0 else np.empty(0)
        right = rows == 2.0 * self.number + self.load.key
        return bool(rows.size and (right | (np.isnan(rows) & self.load.marked)).all())


class Ledger:
    """What became of every request. Any thread.

    Attributes:
        sent: number of requests that were sent.
        faults: things that must never happen, in words.
        lateness: seconds by load: how long after its deadline the latest answer with status 200
            came; negative is in time.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.faults: list[str] = []
        self.lateness: dict[Load, float] = {}
        self._outcomes: dict[Load, Counter[str]] = {}
        self._lock = threading.Lock()

    def send(self, load: Load) -> Sent:
        """Return a new request of `load`, accounted for as sent."""
        self.sent += 1
        return Sent(load)

    def answered(self, sent: Sent, status: int, body: bytes, request_id: str | None) -> None:
        """Account for an answer to `sent`."""
        if sent.load.identified and request_id != str(sent.number):
            self.fault(f"request {sent.number} got the answer of {request_id}")
        elif status == 200 and not sent.is_right(body):
            self.fault(
                f"request {sent.number} of {sent.load.model} got {len(body)} bytes that are not "
                f"its own: {body[:64]!r}"
            )
        self._count(sent.load, "200" if status == 200 else f"{status} {json.loads(body)['code']}")
        if status == 200:
            late = time.monotonic() - sent.at - (sent.load.timeout_ms or 30_000) / 1e3
            self.lateness[sent.load] = max(late, self.lateness.get(sent.load, late))

    def not_taken(self, sent: Sent) -> None:
        """Account for `sent`, pipelined behind a request whose answer ended the connection."""
        self._count(sent.load, "not taken")

    def never(self, sent: Sent, why: str) -> None:
        """Account for `sent`, which was not answered."""
        self._count(sent.load, "never")
        self.fault(f"request {sent.number} of {sent.load.model} was never answered: {why}")

    def fault(self, text: str) -> None:
        """Note a thing that must never happen."""
        self.faults.append(text)

    @property
    def pending(self) -> int:
        """Requests of all models that were sent and have no outcome yet."""
        with self._lock:
            return self.sent - sum(outcomes.total() for outcomes in self._outcomes.values())

    def outcomes(self, model: str, marked: bool | None = None) -> Counter[str]:
        """Return how often requests of `model` got each answer, as `200` or `503 queue_full`.

        `marked` takes only marked requests, or only others; None takes all.
        """
        with self._lock:
            counts = [
                outcomes
                for load, outcomes in self._outcomes.items()
                if load.model == model and marked in (None, load.marked)
            ]
            return sum(counts, Counter())

    def check(self) -> None:
        """Assert that every request was answered exactly once."""
        assert not self.faults, f"{len(self.faults)} faults: {self.faults[:5]}"
        assert self.pending == 0

    def _count(self, load: Load, outcome: str) -> None:
        with self._lock:
            self._outcomes.setdefault(load, Counter())[outcome] += 1
