"""The account of requests.

Each that was sent must be answered exactly once, rightly or with its own error.

Every request carries a number that no other has, the models' answers are a function of it and of
the model's name, and so an answer that belongs to another request, or to another model, is noticed.
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

PATIENCE = 10.0
"""Seconds behind its deadline after which a request counts as never answered.

A loaded machine stands still for some.
"""

NUMBERS = count(1)  # the rows of a warm-up are zeros


@dataclass(frozen=True)
class Load:
    """What is asked of one model.

    Attributes:
        model: its name.
        connections: how many clients ask.
        marked: whether their rows carry the mark that the models look for.
        pipelined: requests that a client sends without waiting for answers.
        rate: requests/s of all its clients together, sent on a schedule; None sends whenever an
            answer came.
        timeout_ms: `X-Timeout-Ms`; None sends none.
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
        """What the model adds to each answer."""
        return float(sum(self.model.encode()))

    @property
    def patience(self) -> float:
        """Seconds after which a request counts as never answered."""
        return (30.0 if self.timeout_ms is None else self.timeout_ms / 1e3) + PATIENCE


@dataclass
class Sent:
    """A request under way."""

    load: Load
    number: int = field(default_factory=NUMBERS.__next__)
    at: float = field(default_factory=time.monotonic)

    @property
    def data(self) -> bytes:
        """Its bytes."""
        lines = [
            f"POST /models/{self.load.model}/predict HTTP/1.1",
            "Host: h",
            "Content-Type: application/octet-stream",
        ]
        lines += [f"X-Timeout-Ms: {self.load.timeout_ms}"] * (self.load.timeout_ms is not None)
        lines += [f"X-Request-Id: {self.number}"] * self.load.identified
        return "\r\n".join([*lines, "Content-Length: 16", "", ""]).encode() + struct.pack(
            "<qq", self.number, self.load.marked
        )

    def is_right(self, body: bytes) -> bool:
        """Return whether `body` is the answer to this request and to no other."""
        rows = np.frombuffer(body, "<f8") if len(body) % 8 == 0 else np.empty(0)
        return bool(
            rows.size
            and (
                (rows == 2.0 * self.number + self.load.key) | (np.isnan(rows) & self.load.marked)
            ).all()
        )


class Ledger:
    """What became of every request. Any thread.

    Attributes:
        sent: requests that were sent.
        faults: what must never be, in words.
        lateness: seconds, for each load, that the latest answer with status 200 came after its
            deadline; negative is in time.
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
        """Account for `sent`, which was pipelined behind a request whose answer ended the connection."""
        self._count(sent.load, "not taken")

    def never(self, sent: Sent, why: str) -> None:
        """Account for `sent`, which was not answered."""
        self._count(sent.load, "never")
        self.fault(f"request {sent.number} of {sent.load.model} was never answered: {why}")

    def fault(self, text: str) -> None:
        """Note what must never be."""
        self.faults.append(text)

    @property
    def pending(self) -> int:
        """Requests of all models that were sent and have no outcome yet."""
        with self._lock:
            return self.sent - sum(outcomes.total() for outcomes in self._outcomes.values())

    def outcomes(self, model: str, marked: bool | None = None) -> Counter[str]:
        """Return how often requests of `model`, marked ones or not, got each answer.

        `200`, `503 queue_full`.
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
