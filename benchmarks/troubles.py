"""Three servers behind HAProxy: what a slow one, one that leaves and one that is killed cost.

The model sleeps for 20 ms a batch, so cores do not matter; a slow server sleeps for 200 ms. HAProxy
has the file of `deploy/haproxy/`. Clients make 200 new connections a second, on a schedule, and ask
once on each; 32 more keep their connections and ask ten times a second. Latency is that of the new
connections, from the time at which they were due.

| window | what happens |
|---|---|
| unfaulted | nothing: all others are compared with it |
| slow | one server becomes slow; `after 2 s` leaves out the time in which the load moves |
| slow, weight not asked | the same, behind a HAProxy that does not ask for weights |
| drained | one server is told to end, ends, and another one starts in its place |
| killed | one server ends at once. What it had under way is lost with it, and counted by itself |
| killed, may run twice | the same, with HAProxy's `retry-on conn-failure empty-response` |
| replaced | all three servers are replaced, one by one |

The share of a slow server is that of all rows which were answered between 2 and 4 s. Requests that
come to it in the moment before its load moves are late: in a short window they are more than one in
a hundred, and so its 99th percentile.

A run whose clients lagged their own schedule (p99 over 5 ms) says little, and makes the exit status
3.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.reporting import write_results
from tests.integration.balancers import NO_AGENTS, NO_CHANGES, Balancer, haproxy
from tests.integration.servers import ThreeServers
from tests.integration.traffic import Timed, Traffic

MOVES_WITHIN_S = 2.0
SHARE_S = 2.0
MAX_LAG_MS = 5.0
REST_S = 6.0
"""Seconds after a window, in which a server that was slow gets its load back."""

FILE_BALANCE = "balance roundrobin\n"
RUNS_TWICE = {"# retry-on": "retry-on"}
Row = dict[str, Any]


class Trial:
    """Three servers, and the windows in which they are asked.

    Attributes:
        rows: lines of the table.
        timed: every request on a new connection.
    """

    def __init__(self, folder: Path, stack: ExitStack, options: argparse.Namespace) -> None:
        """Start the servers; `options` are those of the command line."""
        self._folder, self._stack, self._options = folder, stack, options
        self._servers = ThreeServers(folder, stack)
        self._usual_ms = 0.0
        self.rows: list[Row] = []
        self.timed: list[Timed] = []

    def behind(
        self, name: str, asks: bool = True, changes: Mapping[str, str] = NO_CHANGES
    ) -> Balancer:
        """Start a HAProxy that asks for weights, or does not."""
        folder = self._folder / name
        folder.mkdir()
        servers, agents = self._servers, self._servers.agents if asks else NO_AGENTS
        if self._options.balance:
            changes = {FILE_BALANCE: f"balance {self._options.balance}\n", **changes}
        found = haproxy(folder, servers.ports, agents=agents, changes=changes)
        return self._stack.enter_context(found)

    def measure(self, balancer: Balancer, what: str, happens: Callable[[], str]) -> None:
        """Ask while `happens` runs, which returns what else there is to say of the window."""
        with self._asked(balancer) as traffic:
            began = time.monotonic()
            said = happens()
            time.sleep(max(0.0, began + self._options.seconds - time.monotonic()))
        failed = [text for texts in traffic.failures.values() for text in texts]
        count = sum(traffic.sent.values())
        late = p99_ms(traffic.timed)
        settled = [each for each in traffic.timed if each.due >= began + MOVES_WITHIN_S]
        self._usual_ms = self._usual_ms or late
        self.timed += traffic.timed
        row = {
            "window": what,
            "requests": count + len(failed),
            "failed": len(failed),
            "p99, ms": late,
            "times unfaulted": late / self._usual_ms,
            "p99 after 2 s, ms": p99_ms(settled),
            "after 2 s, times unfaulted": p99_ms(settled) / self._usual_ms,
            "besides": said,
        }
        self.rows.append(row)
        print(row, *sorted({text[:160] for text in failed}), sep="\n  ", flush=True)

    @contextmanager
    def _asked(self, balancer: Balancer) -> Iterator[Traffic]:
        with Traffic(balancer.port).sending() as traffic:
            time.sleep(1.0)
            traffic.timed.clear()
            yield traffic

    def nothing(self) -> str:
        """Have nothing happen."""
        return f"share of the first server: {self._servers.share(0, SHARE_S):.1%}"

    def slow(self) -> str:
        """Have the first server become slow, and well again at the end of the window."""
        self._servers.slow(0).touch()
        time.sleep(MOVES_WITHIN_S)
        left = self._servers.share(0, SHARE_S)
        time.sleep(max(0.0, self._options.seconds - SHARE_S - MOVES_WITHIN_S))
        self._servers.slow(0).unlink()
        return f"share of the first server after 2 s: {left:.1%}"

    def drained(self) -> str:
        """Have one server leave, and another one start in its place."""
        self._servers.replace(1)
        return ""

    def killed(self) -> str:
        """End one server at once."""
        self._servers.running[2].signal(signal.SIGKILL)
        return ""

    def replaced(self) -> str:
        """Replace all servers."""
        for place in range(3):
            self._servers.replace(place)
            time.sleep(1.0)
        return ""

    def start_again(self) -> None:
        """Start another server in place of the one that was killed."""
        self._servers.start(2)


def p99_ms(timed: Sequence[Timed]) -> float:
    """Return the 99th percentile of the latency."""
    return float(np.percentile([each.at - each.due for each in timed], 99)) * 1e3


def windows(trial: Trial) -> None:
    """Measure every window."""
    asking, silent = trial.behind("asking"), trial.behind("silent", asks=False)
    twice = trial.behind("twice", changes=RUNS_TWICE)
    trial.measure(asking, "unfaulted", trial.nothing)
    trial.measure(silent, "slow, weight not asked", trial.slow)
    time.sleep(REST_S)
    trial.measure(asking, "slow", trial.slow)
    time.sleep(REST_S)
    trial.measure(asking, "drained", trial.drained)
    for balancer, what in ((asking, "killed"), (twice, "killed, may run twice")):
        trial.measure(balancer, what, trial.killed)
        trial.start_again()
        time.sleep(REST_S)
    trial.measure(asking, "replaced", trial.replaced)


def main() -> int:
    """Measure, write the results, print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each window, at least")
    parser.add_argument("--balance", default="", help="HAProxy's; that of the file without")
    options = parser.parse_args()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        trial = Trial(Path(folder), stack, options)
        windows(trial)
    lag_ms = float(np.percentile([each.sent - each.due for each in trial.timed], 99)) * 1e3
    remarks = [
        f"HAProxy's {options.balance or FILE_BALANCE.strip()}.",
        f"The clients were late themselves by at most {lag_ms:.2f} ms in 99 of 100 cases.",
    ]
    print(write_results("troubles", "Three servers, some of them in trouble", trial.rows, remarks))
    return 0 if lag_ms <= MAX_LAG_MS else 3


if __name__ == "__main__":
    sys.exit(main())
