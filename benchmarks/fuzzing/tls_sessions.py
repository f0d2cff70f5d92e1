"""TLS: mutated handshakes and records, and HTTP sessions within right ones."""

from __future__ import annotations

import random
import socket
import ssl
from contextlib import suppress

from benchmarks.fuzzing.http_sessions import end_sending, judge, make_session
from benchmarks.fuzzing.mutator import mutated
from benchmarks.hostile_kinds.kind import Target

QUIET_S = 0.3
"""Seconds without a byte after which a server that waits for the rest of a request is left."""

PATIENT_S = 20.0
"""The same where every request is whole, and must be answered."""


def context() -> ssl.SSLContext:
    """Return what a client that trusts everybody needs."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


CONTEXT = context()


def run_tls(target: Target, name: str) -> tuple[int, str]:
    """Run the session that follows from `name`; return requests handled and what is wrong."""
    chance = random.Random(name)
    way = chance.random()
    if way < 0.1:
        return _wrong_handshake(target, chance)
    if way < 0.2:
        return _wrong_records(target, chance, name)
    session = make_session(name, whole=0.03, close=True)
    with _connect(target) as plain, CONTEXT.wrap_socket(plain) as connection:
        for piece in session.pieces:
            connection.sendall(piece)
        if session.leaves:
            return 1, ""
        received = _receive(connection, PATIENT_S if session.framed else QUIET_S)
    return judge(session, received)


def _connect(target: Target) -> socket.socket:
    return socket.create_connection((target.host, target.port), timeout=20)


def _receive(connection: socket.socket, quiet_s: float = QUIET_S) -> bytes:
    pieces = []
    connection.settimeout(quiet_s)
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except OSError:
        pass  # what came before is judged
    return b"".join(pieces)


def _wrong_handshake(target: Target, chance: random.Random) -> tuple[int, str]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = CONTEXT.wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    with _connect(target) as connection:
        connection.sendall(mutated(chance, outgoing.read(), [chance.randbytes(64)]))
        end_sending(connection)
        _receive(connection)
    return 1, ""


def _wrong_records(target: Target, chance: random.Random, name: str) -> tuple[int, str]:
    """Send a right handshake, and then records that are mutated after they were sealed."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    within = CONTEXT.wrap_bio(incoming, outgoing)
    with _connect(target) as connection:
        while True:
            try:
                within.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                received = connection.recv(1 << 16)
                if not received:
                    return 1, "a right handshake was not answered"
                incoming.write(received)
        connection.sendall(outgoing.read())
        within.write(b"".join(make_session(name).pieces))
        connection.sendall(mutated(chance, outgoing.read(), [chance.randbytes(64)]))
        end_sending(connection)
        _receive(connection)
    return 1, ""
