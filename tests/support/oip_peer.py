"""A server for a client under test, without a socket.

The server uses the real codecs, and follows a script that says what to do with each request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from batcher.client.response_reading import HttpResponse
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.oip.request import InferHead, read_head
from batcher.codecs.oip.response import encode
from batcher.core.spec import Array, ModelSpec
from tests.support.codec_inputs import response
from tests.support.models import double, model_spec

SPEC = model_spec()
LENGTH = "inference-header-content-length"


class Taken(NamedTuple):
    """A request as the server understood it."""

    head: InferHead
    inputs: dict[str, Array]


def take(headers: Mapping[str, str], body: bytes, spec: ModelSpec = SPEC) -> Taken:
    """Return a request as the server's decoder reads it."""
    length = int(headers[LENGTH])
    head = read_head(body[:length], spec)
    return Taken(head, head.inputs(memoryview(body)[length:]))


def give(head: InferHead, outputs: Mapping[str, Array]) -> HttpResponse:
    """Return the response with `outputs` as the server's encoder writes it."""
    body, length = encode(response(**outputs), head)
    return HttpResponse(200, {} if length is None else {LENGTH: str(length)}, body)


def doubled(headers: Mapping[str, str], body: bytes) -> HttpResponse:
    """Answer as a server whose model gives `y` = 2 * `x`, four floats a row."""
    head, inputs = take(headers, body)
    return give(head, double(inputs))


def refused(status: int, retry_after: str | None = None) -> HttpResponse:
    """Return an error as the server writes it."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return HttpResponse(status, headers, to_json({"error": f"expected better; got {status}"}))


class Refuse(Exception):
    """A step: the connection is refused."""


class Lose(Exception):
    """A step: the connection ends without an answer."""


class Hang(Exception):
    """A step: nothing ever comes."""


Step = HttpResponse | Exception | Callable[[Mapping[str, str], bytes], HttpResponse]


class Peer:
    """Does the next step of its script with each request, the last one again and again.

    Attributes:
        seen: path, headers and body of every request.
        accepted: how many connections were made.
        refusals: how many connections were refused.
        method: of the request that came last.
        speak: sends something that nobody asked for by the connection that was made last.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.accepted = 0
        self.method = ""
        self.refusals = 0
        self.speak: Callable[[], object] = lambda: None

    @property
    def attempts(self) -> int:
        """How often a client tried to ask."""
        return len(self.seen) + self.refusals

    def accept(self) -> None:
        """Take a connection. Raises ConnectionRefusedError where the script says so."""
        if isinstance(self._steps[0], Refuse):
            self._next_step()
            self.refusals += 1
            raise ConnectionRefusedError("refused")
        self.accepted += 1

    def ask(self, path: str, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Take a request. Raises what the script says."""
        self.seen.append((path, dict(headers), body))
        step = self._next_step()
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, HttpResponse) else step(headers, body)

    def _next_step(self) -> Step:
        return self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]

    def timeouts(self) -> list[float | None]:
        """Return the seconds that each request told the server."""
        return [take(headers, body).head.timeout for _, headers, body in self.seen]
