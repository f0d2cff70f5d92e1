"""What clients learn of failures, and what only the log says.

Why a model did not load, the paths of its files and the text of an exception are the operator's:
they describe the machine to whoever asks. A client reads a reference instead, and a line of the log
has the same reference beside what the client did not read:

    answer   model m/1 is not ready: failed (the server's log says more: request 5f0c9a7e41d2b863)
    log      request 5f0c9a7e41d2b863: model m/1 is not ready: failed: cannot read /srv/m/1/model.pt

The reference is the request's `X-Request-Id`, or a new one where the client sent none. An answer
that has a new one names it in its own `X-Request-Id`, too.

Clients decide how often such lines are written. So there are at most MAX_LINES of them a second,
each of bounded length; an answer whose line was left out has no reference. Reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import NamedTuple

from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.core.error_text import cut, message
from batcher.errors import MODEL_FAILED, BatcherError, ModelError

MAX_LINES = 100
"""Lines a second. An operator needs one; a flood of requests must neither fill the disk nor take
the loop's time.
"""

MAX_LINE_CHARS = 2000
"""Characters of what a line says of a model. The log has the whole of a failed load, or batch, once
where that failed.
"""

MAX_REFERENCE_CHARS = 128
"""Characters of a client's own `X-Request-Id` in texts; a UUID has 36."""

_log = Logger()


class Told(NamedTuple):
    """What a client is told of a failure.

    Attributes:
        text: for the client.
        reference: the request id that was made for it; empty where the client sent one, or where
            nothing was withheld.
    """

    text: str
    reference: bytes = b""


class Disclosure:
    """Decides what clients learn, and logs what they do not.

    Attributes:
        errors: whether clients read why models are not ready, with paths (`expose_errors`).
        model_errors: whether clients read class and message of a model's own exception
            (`expose_model_errors`).
    """

    def __init__(
        self, seconds: Callable[[], float], errors: bool = False, model_errors: bool = False
    ) -> None:
        """Take the time of log lines from `seconds`."""
        self.errors = errors
        self.model_errors = model_errors
        self._seconds = seconds
        self._since = 0.0  # when the present second of lines began
        self._lines = 0
        self._left_out = 0

    def error(self, error: BaseException, request_id: bytes | None) -> Told:
        """Return what to tell a client of `error`; `request_id` is what the client sent."""
        if not isinstance(error, BatcherError):
            return self._withhold("the server failed on this request", error, request_id)
        text = message(error)
        if isinstance(error, ModelError) and error.private and not self.model_errors:
            whole = f"{text} ({error.place})" if error.place else text
            return self._withhold(MODEL_FAILED, whole, request_id)
        return self.part(text, error.public, request_id)

    def part(self, whole: str, public: str | None, request_id: bytes | None) -> Told:
        """Return `whole` where clients may read it, else `public` with a reference.

        `public` is None where every client may read `whole`.
        """
        if public is None or public == whole or self.errors:
            return Told(whole)
        return self._withhold(public, whole, request_id)

    def _withhold(self, public: str, whole: str | BaseException, request_id: bytes | None) -> Told:
        reference = token_hex(8) if request_id is None else _printable(request_id)
        if not self._may_log():
            return Told(public)
        left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} lines like this were left out before)" if left_out else ""
        if isinstance(whole, str):
            what = cut(whole, MAX_LINE_CHARS)
            _log.error("request {id}: {what}{more}", id=reference, what=what, more=more)
        else:
            failure, text = Failure(whole), "request {id} failed unexpectedly{more}"
            _log.failure(text, failure, id=reference, more=more)
        text = f"{public} (the server's log says more: request {reference})"
        return Told(text, b"" if request_id is not None else reference.encode())

    def _may_log(self) -> bool:
        now = self._seconds()
        if now - self._since >= 1:
            self._since, self._lines = now, 0
        if self._lines >= MAX_LINES:
            self._left_out += 1
            return False
        self._lines += 1
        return True


def disclosure_of(settings: ServerSettings, seconds: Callable[[], float]) -> Disclosure:
    """Return what `settings` let clients learn; the time of log lines comes from `seconds`."""
    return Disclosure(seconds, settings.expose_errors, settings.expose_model_errors)


def _printable(request_id: bytes) -> str:
    """Return a client's own id as it may stand in a line of the log."""
    text = request_id.decode("latin-1")[:MAX_REFERENCE_CHARS]
    return "".join(char if char.isprintable() else "?" for char in text)
