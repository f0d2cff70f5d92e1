"""Clients that misbehave: they leave, read nothing, flood, or speak no HTTP."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle

from tests.chaos.ledger import Load, Sent
from tests.end_to_end.processes import Process, receive_all
from tests.support.http_answers import parse_answers

MIB = 1 << 20
SLOW = Sent(Load("slow")).data
LARGE = Sent(Load("large")).data
HEAD_BYTES = SLOW.index(b"\r\n\r\n")

IMPATIENT = (
    "write_timeout_s=1",
    "header_timeout_s=1",
    "body_timeout_s=1",
    "max_body_bytes=1MiB",
    "models.large.max_batch_size=8",
)
"""Settings of a server that is to be done with such clients within seconds. Batches of `large` are
small, since 64 of its rows would hide what the server keeps.
"""

Trouble = Callable[[Process], None]


def reset(connection: socket.socket) -> None:
    """Close a connection as a client that crashes does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


LEAVING = cycle((reset, socket.socket.close))


def leave_in_the_head(server: Process) -> None:
    connection = server.connect()
    connection.sendall(SLOW[: HEAD_BYTES // 2])
    next(LEAVING)(connection)


def leave_in_the_body(server: Process) -> None:
    connection = server.connect()
    connection.sendall(SLOW[:-5])
    next(LEAVING)(connection)


def leave_while_waiting(server: Process) -> None:
    connection = server.connect()
    connection.sendall(SLOW * random.randint(1, 5))
    time.sleep(random.random() * 0.05)
    next(LEAVING)(connection)


def leave_while_being_answered(server: Process) -> None:
    connection = server.connect()
    connection.sendall(LARGE * 2)
    connection.recv(random.randint(1, MIB))
    next(LEAVING)(connection)


def open_and_close(server: Process) -> None:
    """Open fifty connections at once and close them.

    More would make others wait, since uvloop accepts one connection a turn.
    """
    connections = [server.connect() for _ in range(50)]
    for connection in connections:
        next(LEAVING)(connection)
    time.sleep(0.5)


def send_garbage(server: Process) -> None:
    with server.connect() as connection, suppress(ConnectionError):
        tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        connection.sendall(
            random.choice(
                (random.randbytes(500), bytes(5000), SLOW[:20] + random.randbytes(100), tls)
            )
        )
        connection.shutdown(socket.SHUT_WR)
        parse_answers(receive_all(connection), [], over=True)


def change_a_byte(server: Process) -> None:
    """Send a request with one byte of its head changed.

    The request is answered, or refused, and never runs as two.
    """
    damaged = bytearray(SLOW)
    damaged[random.randrange(HEAD_BYTES)] = random.randrange(256)
    with server.connect() as connection, suppress(ConnectionError):
        connection.sendall(damaged)
        connection.shutdown(socket.SHUT_WR)
        answers, rest = parse_answers(receive_all(connection), [], over=True)
        assert rest == b""
        assert [answer.status for answer in answers].count(200) <= 1


def read_nothing(server: Process) -> None:
    """Ask for 64 MiB, read nothing and be cut off."""
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(ConnectionError):
            connection.sendall(LARGE * 64)
            time.sleep(2)  # the limits on time are coarse by half a second


def read_slowly(server: Process) -> None:
    """Ask for 4 MiB and read little at a time."""
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(LARGE * 4)
        for _ in range(20):
            connection.recv(4096)
            time.sleep(0.02)


def send_slowly(server: Process) -> None:
    """Send a request a byte at a time until it is refused for that."""
    with server.connect() as connection, suppress(ConnectionError):
        for byte in SLOW:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
        connection.recv(1 << 16)


def flood_one_connection(server: Process) -> None:
    """Send thousands of requests without waiting for an answer, and read all answers."""
    requests = Sent(Load("ok")).data * 2000
    with server.connect() as connection, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(connection.sendall, requests)
        answers, tail = 0, b""
        while answers < 2000:
            piece = connection.recv(1 << 16)
            assert piece, "the connection ended"
            answers += (tail + piece).count(b"HTTP/1.1 200 ") - tail.count(b"HTTP/1.1 200 ")
            tail = (tail + piece)[-12:]
        sending.result()


KINDS: dict[Trouble, int] = {
    leave_in_the_head: 4,
    leave_in_the_body: 4,
    leave_while_waiting: 8,
    leave_while_being_answered: 4,
    open_and_close: 4,
    send_garbage: 4,
    change_a_byte: 4,
    read_nothing: 4,
    read_slowly: 4,
    send_slowly: 8,
    flood_one_connection: 2,
}
"""Each kind of trouble, and how many clients make it at a time."""


def make_trouble(server: Process, kinds: dict[Trouble, int], seconds: float) -> None:
    """Let all `kinds` of clients misbehave for `seconds`, each client at least once."""
    end = time.monotonic() + seconds

    def repeat(trouble: Trouble) -> None:
        while True:
            # a client that misbehaves may be cut off at any moment, or stand in line
            with suppress(ConnectionError, TimeoutError):
                trouble(server)
            if time.monotonic() > end:
                return

    with ThreadPoolExecutor(sum(kinds.values())) as pool:
        clients = [
            pool.submit(repeat, trouble) for trouble, count in kinds.items() for _ in range(count)
        ]
    for client in clients:
        client.result()
