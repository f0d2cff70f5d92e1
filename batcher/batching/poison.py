"""Requests that keep failing alone: a list of their contents, by which repeats are refused at once.

A request that makes its batch raise costs up to 2*log2(n)+2 runs of a batch of n parts each time
the request is sent, and clients repeat what failed. So a request is refused once its content has
failed alone twice; one failure may have been chance. A refusal ends after a set time without a
further failure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from batcher.batching.part import Part
from batcher.core.digests import Digests
from batcher.core.spec import Array
from batcher.errors import KnownToFail

FAILURES_BEFORE_REFUSAL = 2
"""Failures alone after which a request is refused: one failure may have been chance."""

MAX_REMEMBERED = 4096
"""Requests that are remembered; the request that failed longest ago is forgotten first."""

MAX_REMEMBERED_BYTES = 1 << 20
"""Bytes of inputs above which a request is not remembered.

Hashing more would hold up the loop for milliseconds.
"""


class PoisonList:
    """Remembers requests that failed alone. Time is an argument. Reactor thread."""

    def __init__(self, seconds: float) -> None:
        """Remember each request for `seconds` after its last failure; 0 remembers nothing."""
        self._seconds = seconds
        self._digests = Digests()
        # by digest: failures so far, and the time at which they are forgotten; the earliest first
        self._failures: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._refused = 0  # requests among them that have failed often enough

    def note_failure(self, part: Part, now: float) -> None:
        """Count a failure of `part`, which was alone in its batch."""
        if not self._seconds or part.nbytes > MAX_REMEMBERED_BYTES:
            return
        self._forget(now)
        key = self._digests.of(part.inputs)
        failures = self._failures.pop(key, (0, 0.0))[0] + 1
        self._failures[key] = (failures, now + self._seconds)
        self._refused += failures == FAILURES_BEFORE_REFUSAL
        if len(self._failures) > MAX_REMEMBERED:
            self._drop_oldest()

    def check(self, inputs: Mapping[str, Array], nbytes: int, now: float) -> None:
        """Check that `inputs`, of `nbytes` bytes, have not failed alone twice lately.

        Raises:
            KnownToFail: they have.
        """
        # no request pays for a digest while there is none to refuse
        if not self._refused or nbytes > MAX_REMEMBERED_BYTES:
            return
        self._forget(now)
        failures, until = self._failures.get(self._digests.of(inputs), (0, 0.0))
        if failures >= FAILURES_BEFORE_REFUSAL:
            raise KnownToFail(
                f"the same inputs have failed alone {failures} times; they are refused for "
                f"{until - now:.0f} s more"
            )

    def _forget(self, now: float) -> None:
        while self._failures and next(iter(self._failures.values()))[1] <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (failures, _) = self._failures.popitem(last=False)
        self._refused -= failures >= FAILURES_BEFORE_REFUSAL
