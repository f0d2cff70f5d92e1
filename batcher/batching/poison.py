"""Requests that keep failing alone, remembered for a while by what they contain, and refused before they cost anything again.

A request that makes its batch raise costs up to 2*log2(B)+2 runs each time it is sent, and clients
repeat what failed. It is refused once it has failed alone twice: once may have been chance.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

from batcher.batching.part import Part
from batcher.core.spec import Array
from batcher.errors import KnownToFail

TWICE = 2
MOST = 4096
"""Requests that are remembered; the one that failed longest ago is forgotten first."""

LARGEST = 1 << 20
"""Bytes of inputs above which nothing is remembered: reading them would hold up the loop for
milliseconds.
"""


class Poison:
    """Remembers requests that failed alone. Time is an argument."""

    def __init__(self, seconds: float) -> None:
        """Remember each for `seconds` since it failed last; 0 remembers nothing."""
        self._seconds = seconds
        self._failures: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._known = 0  # those that are refused

    def failed_alone(self, part: Part, now: float) -> None:
        """Count a failure of `part`, which was alone in its batch."""
        if not self._seconds or part.nbytes > LARGEST:
            return
        self._forget(now)
        key = _digest(part.inputs)
        failures = self._failures.pop(key, (0, 0.0))[0] + 1
        self._failures[key] = (failures, now + self._seconds)
        self._known += failures == TWICE
        if len(self._failures) > MOST:
            self._drop_oldest()

    def check(self, inputs: Mapping[str, Array], nbytes: int, now: float) -> None:
        """Raise KnownToFail if `inputs` have failed alone twice and not too long ago."""
        if not self._known or nbytes > LARGEST:
            return
        self._forget(now)
        failures, until = self._failures.get(_digest(inputs), (0, 0.0))
        if failures >= TWICE:
            raise KnownToFail(
                f"the same inputs have failed alone {failures} times; they are refused for "
                f"{until - now:.0f} s more"
            )

    def _forget(self, now: float) -> None:
        while self._failures and next(iter(self._failures.values()))[1] <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (failures, _) = self._failures.popitem(last=False)
        self._known -= failures >= TWICE


def _digest(inputs: Mapping[str, Array]) -> bytes:
    found = blake2b(digest_size=16)
    for name in sorted(inputs):
        array = inputs[name]
        found.update(f"{name}\0{array.dtype.str}{array.shape}\0".encode())
        if array.dtype.hasobject:
            for text in array.flat:
                found.update(b"%d:" % len(text))
                found.update(text)
        else:
            found.update(array.tobytes())
    return found.digest()
