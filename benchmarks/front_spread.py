"""How evenly connections spread over fronts, in the two ways that there are.

- own sockets: each front has a socket of the same port (`SO_REUSEPORT`), and the kernel chooses one
  by a hash of the addresses;
- in turn: one process accepts, and passes each accepted socket on to the next front.

`fronts: n` has the first one. Counted are the connections of the busiest front, against those that
each would have if all had equally many. Timed is what one connection costs the server's processes:
to accept it, and to pass it on to another process that takes it.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import socket
from contextlib import ExitStack
from math import ceil
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from batcher.frontends.listening.sockets import tcp_sockets
from benchmarks.reporting import write_results

FRONTS = (2, 4, 8)
CONNECTIONS = (4, 16, 64, 256)
TIMED = 2000


def own_sockets(fronts: int, connections: int) -> float:
    """Return how many times its fair share the busiest of so many sockets of one port got."""
    with ExitStack() as stack:
        first = stack.enter_context(tcp_sockets("127.0.0.1", 0, True)[0])
        port = first.getsockname()[1]
        others = [tcp_sockets("127.0.0.1", port, True)[0] for _ in range(fronts - 1)]
        listeners = [first, *(stack.enter_context(each) for each in others)]
        for _ in range(connections):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        counts = [_accepted(listener, stack) for listener in listeners]
    assert sum(counts) == connections
    return max(counts) * fronts / connections


def _accepted(listener: socket.socket, stack: ExitStack) -> int:
    """Return how many connections wait at `listener`."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            stack.enter_context(listener.accept()[0])
        except BlockingIOError:
            return count
        count += 1


def in_turn(fronts: int, connections: int) -> float:
    """Return how many times its fair share the busiest front gets where all take turns."""
    return ceil(connections / fronts) * fronts / connections


def microseconds(is_passed_on: bool) -> float:
    """Return what a connection takes, in us, the median: accepted, or passed on besides."""
    found = []
    ours, theirs = socket.socketpair()
    with ours, theirs, tcp_sockets("127.0.0.1", 0, False)[0] as listener:
        for _ in range(TIMED):
            with socket.create_connection(listener.getsockname()):
                began = perf_counter()
                taken = listener.accept()[0]
                if is_passed_on:
                    with taken:
                        socket.send_fds(ours, [b"c"], [taken.fileno()])
                    taken = socket.socket(fileno=socket.recv_fds(theirs, 1, 1)[1][0])
                found.append(perf_counter() - began)
                taken.close()
    return median(found) * 1e6


def row(fronts: int, connections: int, rounds: int) -> dict[str, Any]:
    """Return the row of so many fronts and connections."""
    shares = [own_sockets(fronts, connections) for _ in range(rounds)]
    return {
        "fronts": fronts,
        "connections": connections,
        "own sockets, median": median(shares),
        "own sockets, one time in 20": quantiles(shares, n=20)[-1],
        "in turn": in_turn(fronts, connections),
    }


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    rows = [row(fronts, each, options.rounds) for fronts in FRONTS for each in CONNECTIONS]
    accepted, passed_on = microseconds(False), microseconds(True)
    remarks = [
        "Connections of the busiest front, over those of each if all had equally many.",
        f"The processes need {accepted:.0f} us to accept a connection, and {passed_on:.0f} us to "
        "accept it, pass it on, and take it.",
    ]
    print(write_results("front_spread", "How connections spread over fronts", rows, remarks))


if __name__ == "__main__":
    main()
