"""Steady load for end-to-end tests: threads that send, each over one kept connection.

Every answer is kept.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import numpy as np

from tests.end_to_end.processes import Process, one_answer
from tests.support.http_answers import Answer


def row_for(model: str, value: float) -> bytes:
    """Return a request of one row for `model`, four times `value`."""
    head = f"POST /models/{model}/predict HTTP/1.1\r\nHost: h\r\n"
    head += "Content-Type: application/octet-stream\r\nContent-Length: 16\r\n\r\n"
    return head.encode() + np.full(4, value, "<f4").tobytes()


class Clients:
    """Threads that send and wait for the answer, again and again.

    Attributes:
        answers: every answer with the value that was sent, in no order.
        broken: number of connections that ended while an answer was due.
    """

    def __init__(self, server: Process, model: str, number: int) -> None:
        """Send to `model` over `number` connections; nothing is sent yet."""
        self.answers: list[tuple[float, Answer]] = []
        self.broken = 0
        self._model = model
        self._stop = Event()
        self._threads = [
            Thread(target=self._run, args=(server.connect(), client)) for client in range(number)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more, and wait for the answers that are due."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self, connection: socket.socket, client: int) -> None:
        value = float(client)
        with connection:
            while not self._stop.is_set():
                value += 1
                try:
                    connection.sendall(row_for(self._model, value))
                    answer = one_answer(connection)
                except (OSError, AssertionError):
                    self.broken += 1
                    return
                self.answers.append((value, answer))
                if answer.header("connection") == "close":
                    return


@contextmanager
def under_load(server: Process, model: str, number: int) -> Iterator[Clients]:
    """Have `number` clients send to `model` while the context is open."""
    clients = Clients(server, model, number)
    clients.start()
    try:
        yield clients
    finally:
        with suppress(RuntimeError):
            clients.stop()


def made_of(answer: Answer) -> float:
    """Return the first number of an answer."""
    return float(np.frombuffer(answer.body, "<f4")[0])
