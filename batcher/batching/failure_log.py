"""What a model's failures leave in the log: few tracebacks, each of bounded length.

Errors of one class that were raised in one line of the model's code are one kind. Of each kind one
traceback is logged in `LOG_INTERVAL_S`, with the number of errors that were left out since the last
one. How many batches failed in all, the metrics say.
"""

from __future__ import annotations

from twisted.logger import Logger

from batcher.core.error_text import stack
from batcher.models.own_code import first_cause, own_place

_log = Logger()

LOG_INTERVAL_S = 10.0
"""Seconds between two tracebacks of one kind.

An operator who looks sees a failure at once, and a model that always fails fills no disk.
"""

MAX_KINDS = 16
"""Kinds of errors that are told apart.

All further kinds count as one, since a model might make up classes for ever.
"""


class FailureLog:
    """Logs the failures of one model. Reactor thread."""

    def __init__(self, model: str) -> None:
        """Log in the name of `model`."""
        self._model = model
        self._logged_at: dict[str, float] = {}  # by kind, seconds of its last traceback
        self._left_out: dict[str, int] = {}  # by kind, errors since then

    def write(self, what: str, error: BaseException, now: float) -> None:
        """Log that `what` has failed with `error`, unless its kind was logged just before `now`."""
        place = own_place(error)
        # The class of the server's own error, in which a hook's is wrapped, says nothing.
        kind = f"{type(error).__qualname__} {type(first_cause(error)).__qualname__} {place}"
        if kind not in self._logged_at and len(self._logged_at) >= MAX_KINDS:
            kind = ""
        logged_at = self._logged_at.get(kind)
        if logged_at is not None and now - logged_at < LOG_INTERVAL_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._logged_at[kind] = now
        left_out = self._left_out.pop(kind, 0)
        more = f" ({left_out} more like it were not logged since the last)" if left_out else ""
        _log.error(
            "model {model}: {what}{place}{more}\n{trace}",
            model=self._model,
            what=what,
            place=f" ({place})" if place is not None else "",
            more=more,
            trace=stack(error),
        )
