"""The stage that divides the requests of a model among its versions, by shares.

    request (route, no version) -> side, by shares -> the side's version -> answer, counted

A side is a word or number of the settings, such as `canary`; a label may move to another version,
and the side's keys go with it. The side of a route is found by weighted rendezvous hashing:

    score(side) = -ln(u(route, side)) / share(side),   u in (0, 1) by a hash;   the least one wins

The score of a side is exponential with the rate `share`, so a side wins with the probability
share / sum of shares. A side whose share grows takes routes from others and gives none away: at 1 %
and then at 5 %, the routes of the first percent stay where they are. With shares 95 and 5, 5 of 100
routes go to the second side.

Refused: ranges on a line from 0 to 100. They move routes between sides that keep their shares.

Source: Thaler and Ravishankar 1998; the weights as in Schindelhauer and Schomaker 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import log
from random import Random
from typing import Any, ClassVar, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.errors import BatcherError
from batcher.serving.stages.stage import GoOn, Stage

Result = TypeVar("Result")


class Split:
    """Finds the side of a route. Any thread.

    Args:
        salt: makes the sides of one model independent of those of another, such as its name.
        shares: from each side to its share.
        random: finds the side of a request without a route.
    """

    def __init__(self, salt: str, shares: Mapping[str, float], random: Random) -> None:
        """Store the shares, one of which is above 0."""
        self._sides = [(side, share) for side, share in shares.items() if share > 0]
        self._salt = salt
        self._random = random

    def side(self, route: str) -> str:
        """Return the side of `route`; without a route any side, as often as its share says."""
        if not route:
            sides, shares = zip(*self._sides, strict=True)
            return str(self._random.choices(sides, shares)[0])
        return min(self._sides, key=lambda each: self._score(route, *each))[0]

    def _score(self, route: str, side: str, share: float) -> float:
        text = f"{self._salt}\0{side}\0{route}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        return -log((number + 0.5) / 2**64) / share


class Division(Protocol):
    """Says which version gets a request, and hears how that went. Reactor thread."""

    def pick(self, route: str, fitting: Mapping[str, Any]) -> str:
        """Return the number of the version that gets a request with `route`.

        `fitting` has the versions that can answer. Raises ModelNotReady: none of them is meant.
        """

    def heard(self, version: str, seconds: float, error: BaseException | None) -> None:
        """Hear that `version` has answered after `seconds`, or has failed with `error`."""


class SplitStage(Stage):
    """Sends each request to the version that a division picks. Reactor thread."""

    picks_version: ClassVar[bool] = True

    def __init__(
        self, division: Division, fitting: Mapping[str, Any], seconds: Callable[[], float]
    ) -> None:
        """Divide by `division` among the versions that are `fitting`, by number."""
        self._division = division
        self._fitting = fitting
        self._seconds = seconds

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Have the version that is picked answer `request`.

        Raises where the request is refused at once. Reactor thread.
        """
        version = self._division.pick(request.parameters.route, self._fitting)
        began = self._seconds()
        sent = InferenceRequest(
            request.model, version, request.inputs, request.rows, request.parameters
        )
        try:
            answer = go_on(sent)
        except BatcherError as err:
            self._division.heard(version, self._seconds() - began, err)
            raise
        return answer.addBoth(self._ended, version, began)

    def _ended(self, result: Result, version: str, began: float) -> Result:
        error = result.value if isinstance(result, Failure) else None
        self._division.heard(version, self._seconds() - began, error)
        return result
