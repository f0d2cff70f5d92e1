"""HTTP: connections on which mutated requests stand between right ones."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from benchmarks.fuzzing.corpus import samples
from benchmarks.fuzzing.mutator import mutated
from benchmarks.hostile_kinds.kind import Target
from tests.support.http_answers import Answer, parse_answers

ANSWER_LIMIT_S = 20.0
"""Seconds within which a connection that the client has half closed must end: above them a client
was forgotten.
"""

ROW_BYTES = 256

ALLOWED = frozenset((501, 503, 504, 505))
"""Statuses above 499 that tell a client of something it may not or cannot have, with the reason."""

SAMPLES = samples()
HEADS = [sample.head(len(sample.body)) for sample in SAMPLES]
BODIES = [sample.body for sample in SAMPLES if sample.body]


class Probe(NamedTuple):
    """A right request whose answer is known: the model `probe` gives its input back.

    Attributes:
        name: its request id.
        row: its body, and that of the answer.
    """

    name: str
    row: bytes

    def request(self, close: bool = False) -> bytes:
        """Return the request; with `close`, the last one on its connection."""
        lines = (
            "POST /models/probe/predict HTTP/1.1",
            "Host: h",
            "Content-Type: application/octet-stream",
            f"X-Request-Id: {self.name}",
            f"Content-Length: {len(self.row)}",
            *(("Connection: close",) if close else ()),
        )
        return "\r\n".join([*lines, "", ""]).encode() + self.row


class Session(NamedTuple):
    """What a client sends on one connection.

    Attributes:
        probes: the right requests, first and last.
        pieces: what is sent at a time.
        framed: whether the framing of every mutated request is right, so that the last request
            must be answered too.
        leaves: whether the client resets the connection instead of reading.
    """

    probes: tuple[Probe, Probe]
    pieces: tuple[bytes, ...]
    framed: bool
    leaves: bool


def make_session(name: str, whole: float = 0.2, close: bool = False) -> Session:
    """Return the session that follows from `name`.

    Args:
        name: of the session, with the run's seed in it.
        whole: share of the requests that are mutated with no regard for their framing.
        close: whether the last request asks for the connection's end.
    """
    chance = random.Random(name)
    first, last = (Probe(f"{name}-{end}", chance.randbytes(ROW_BYTES)) for end in (0, 1))
    wrong = [_mutated(chance, whole) for _ in range(chance.randint(1, 8))]
    data = b"".join([first.request(), *(data for data, _ in wrong), last.request(close)])
    framed = all(framed for _, framed in wrong)
    return Session((first, last), _cut(chance, data), framed, chance.random() < 0.03)


def _mutated(chance: random.Random, whole: float) -> tuple[bytes, bool]:
    """Return a mutated request, and whether its framing is right."""
    sample = chance.choice(SAMPLES)
    head, body = sample.head(len(sample.body)), sample.body
    way = chance.random()
    if way < whole:
        return mutated(chance, head + body, HEADS), False
    if way < 2 * whole or not body:
        return mutated(chance, head, HEADS) + body, False
    body = mutated(chance, body, BODIES)
    # A body that breaks its content coding is refused while it is read, and ends its connection.
    framed = not any(field.startswith("Content-Encoding") for field in sample.fields)
    if way < 0.8:
        return sample.head(len(body)) + body, framed
    return sample.head(None) + _chunks(chance, body), framed


def _chunks(chance: random.Random, body: bytes) -> bytes:
    size = chance.choice((1, 7, 64, 4096))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join([*chunks, b"0\r\n\r\n"])


def _cut(chance: random.Random, data: bytes) -> tuple[bytes, ...]:
    """Return `data` whole, or in a few pieces that are sent one by one."""
    if chance.random() < 0.8:
        return (data,)
    cuts = sorted(chance.randrange(len(data)) for _ in range(3))
    return tuple(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))


def run_session(target: Target, session: Session) -> tuple[int, str]:
    """Return how many mutated requests were handled, and what is wrong; empty if nothing is."""
    address = (target.host, target.port)
    with socket.create_connection(address, timeout=ANSWER_LIMIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in session.pieces:
                connection.sendall(piece)
            if session.leaves:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return 1, ""
            end_sending(connection)
        return judge(session, _receive(connection))


def end_sending(connection: socket.socket) -> None:
    """End the sending side, unless the server has reset the connection already."""
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError as err:
        if err.errno != errno.ENOTCONN:
            raise


def _receive(connection: socket.socket) -> bytes | str:
    """Return everything up to the end, or what is wrong."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except TimeoutError:
        return f"no end within {ANSWER_LIMIT_S:g} s; got {b''.join(pieces)[-200:]!r}"
    except ConnectionResetError:
        pass  # what came before is judged
    return b"".join(pieces)


def judge(session: Session, data: bytes | str) -> tuple[int, str]:
    """Return how many mutated requests were handled, and what is wrong with the answers."""
    if isinstance(data, str):
        return 1, data
    try:
        answers, rest = parse_answers(data, [], over=True)
    except (AssertionError, ValueError) as err:
        return 1, f"answers that no client can read: {err}"
    final = [answer for answer in answers if answer.status >= 200]
    wrong = _wrong(session, final)
    if rest and not wrong:
        wrong = f"an answer that is cut off: {rest[:200]!r}"
    return max(1, len(final) - 1), wrong


def _wrong(session: Session, answers: Sequence[Answer]) -> str:
    first, last = session.probes
    for answer in answers:
        if answer.status >= 500 and (answer.status not in ALLOWED or b"error" not in answer.body):
            return f"{answer.status} {answer.body[:300]!r}"
    if not answers or not _is_right(answers[0], first):
        return f"the first request was answered {answers[:1]}"
    if session.framed and not _is_right(answers[-1], last):
        return f"the last request was answered {answers[-1]}"
    # What comes before the last request may have become a part of its head, and have changed it.
    # But nobody else's row may ever come: only right requests get a 200 with as many bytes.
    rows = [answer for answer in answers if answer.status == 200 and len(answer.body) == ROW_BYTES]
    for answer in rows:
        if answer.body not in (first.row, last.row):
            return f"an answer has a row that nobody sent here: {answer}"
    return ""


def _is_right(answer: Answer, probe: Probe) -> bool:
    """Return whether the answer is the probe's own; a busy server may refuse with the reason."""
    if answer.header("x-request-id") != probe.name:
        return False
    return answer.status == 503 or (answer.status, answer.body) == (200, probe.row)
