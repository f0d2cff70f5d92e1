"""What a model's failures leave in the log.

A bounded number of tracebacks, each of bounded length, however many fail.
"""

from __future__ import annotations

from twisted.logger import Logger

from batcher.core.error_text import stack

_log = Logger()

INTERVAL = 10.0
"""Seconds between two tracebacks of one kind: whoever looks sees it at once, and a model that fails
always fills no disk.
"""

MOST_KINDS = 16
"""Kinds of errors that are told apart.

What comes beyond them is one kind, or a model could make up classes for ever.
"""


class FailureLog:
    """Logs the failures of one model, of each kind (class of the error) one in `INTERVAL`, with how many it left out.

    How many failed in all, the metrics say. Reactor thread.
    """

    def __init__(self, model: str) -> None:
        """Log in the name of `model`."""
        self._model = model
        self._told: dict[str, float] = {}  # by kind, when it was last told
        self._left_out: dict[str, int] = {}  # by kind, how often it was not since then

    def write(self, what: str, error: BaseException, now: float) -> None:
        """Say that `what` has failed with `error`, unless that was said of another one of its kind shortly before `now`."""
        kind = type(error).__qualname__
        if kind not in self._told and len(self._told) >= MOST_KINDS:
            kind = ""
        told = self._told.get(kind)
        if told is not None and now - told < INTERVAL:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._told[kind] = now
        left_out = self._left_out.pop(kind, 0)
        more = f" ({left_out} more like it were not logged since the last)" if left_out else ""
        _log.error(
            "model {model}: {what}{more}\n{trace}",
            model=self._model,
            what=what,
            more=more,
            trace=stack(error),
        )
