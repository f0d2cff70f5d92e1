"""A request and a reply of HTTP, as values that no framework owns.

A request is a `Call`: a head and a body. Clients send the same head again and again, so calls with
equal heads share one `CallHead`, and the head keeps what an endpoint has worked out from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer
from batcher.codecs.content_coding import Body
from batcher.core.request import InferenceResponse
from batcher.frontends.endpoints.api_key import named_key

Headers = Mapping[bytes, bytes]
"""Header fields by lower-case name; repeated fields are joined by commas."""

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields of an answer, each a name and a value."""


VERSION_FIELD = b"X-Model-Version"


def version_field(version: str) -> Fields:
    """Return the header field that says which `version` has answered."""
    return ((VERSION_FIELD, version.encode()),)


CACHE_FIELD = b"X-Cache"


REPLAYED_FIELD = b"Idempotency-Replayed"


def answer_fields(response: InferenceResponse, picks_version: bool, once: str) -> Fields:
    """Return the header fields of an answer that stages ask for.

    Args:
        response: the answer.
        picks_version: whether a stage has chosen the version, which the client then learns.
        once: key by which the client repeats the request, if a stage reads it: the client then
            learns whether this is the answer to an earlier attempt.
    """
    fields = version_field(response.version) if picks_version else ()
    if once:
        fields = (*fields, (REPLAYED_FIELD, replayed_text(response).encode()))
    return fields


def replayed_text(response: InferenceResponse) -> str:
    """Return whether `response` is the answer to an earlier attempt, as clients read that."""
    return "true" if response.origin == "replayed" else "false"


def asks_anew(cache_control: str) -> bool:
    """Return whether a request with this `Cache-Control` wants no answer that was kept."""
    wishes = [wish.strip().lower() for wish in cache_control.split(",")]
    return "no-cache" in wishes or "no-store" in wishes


class CallHead:
    """Everything of a request but its body.

    Calls with equal heads share one, whatever connection they come from.

    Attributes:
        method: `GET`, `POST`, …
        path: the target's path as the client sent it, without the query.
        arguments: the values that the route's pattern captured, percent-decoded.
        query: the target behind the question mark, as the client sent it.
        headers: header fields.
        marks: header fields that the answer has, whatever it says (`Router.marks`).
        plan: what an endpoint worked out from this head, kept for the next call with the head; None
            before the first call.
    """

    __slots__ = ("arguments", "headers", "marks", "method", "path", "plan", "query")

    def __init__(
        self,
        method: str,
        path: str,
        arguments: Mapping[str, str],
        query: str,
        headers: Headers,
        marks: Fields,
    ) -> None:
        """Store the attributes; only `plan` changes later."""
        self.method = method
        self.path = path
        self.arguments = arguments
        self.query = query
        self.headers = headers
        self.marks = marks
        self.plan: Any = None

    @property
    def request_id(self) -> bytes | None:
        """The value of `X-Request-Id`, None without that header."""
        return self.headers.get(b"x-request-id")

    def header(self, name: bytes) -> str:
        """Return a header's value as text, empty if it is absent."""
        return self.headers.get(name, b"").decode("latin-1")

    def model(self) -> tuple[str, str]:
        """Return name and version of the model in the path, each empty where the path has none.

        A label in the path stands in the version's place.
        """
        found = self.arguments
        return found.get("name", ""), found.get("version", "") or found.get("label", "")

    def route(self) -> str:
        """Return the text by which the version is chosen where versions share the requests."""
        return self.header(b"x-route-key") or self.header(b"x-request-id")

    def fresh(self) -> bool:
        """Return whether the model is to run in any case, whatever answers are kept."""
        return asks_anew(self.header(b"cache-control"))

    def key(self) -> str:
        """Return the API key whose quota the request is charged to, empty without a key."""
        return named_key(self.header(b"x-api-key"), self.header(b"authorization"))


class Call:
    """A whole request.

    Attributes:
        head: everything but the body.
        body: the body without its content coding, unless the body is large; the router empties
            the attribute when the endpoint has returned, and so has taken the body.
        size: bytes of the body.
        began: when the first byte of the request came, in seconds on the server's clock.
        peer: the client's address, for the log.
        plan: makes the reply from the endpoint's result; the head may have a newer plan meanwhile.
    """

    __slots__ = ("began", "body", "head", "peer", "plan", "size")

    def __init__(self, head: CallHead, body: Body, began: float, peer: str) -> None:
        """Store the attributes."""
        self.head = head
        self.body = body
        self.size = len(body)
        self.began = began
        self.peer = peer
        self.plan: Any = None


@final
class FileBody:
    """A file that is sent a piece at a time, as fast as its client reads.

    Attributes:
        path: where it is.
        nbytes: its size.
        run: runs a function that holds so many bytes, on a thread for the disk.
    """

    __slots__ = ("nbytes", "path", "run")

    def __init__(
        self, path: Path, nbytes: int, run: Callable[[int, Callable[[], Any]], Deferred[Any]]
    ) -> None:
        """Store the attributes; they do not change."""
        self.path = path
        self.nbytes = nbytes
        self.run = run


@final
class Reply:
    """A whole answer.

    Attributes:
        status: HTTP status.
        content_type: media type of the body.
        body: bytes to write.
        headers: further header fields, each a name and a value.
        model: name of the model that was asked, for metrics; empty where no model was.
        file: what is sent in place of `body`; None on every route that the fast connection calls.
    """

    __slots__ = ("body", "content_type", "file", "headers", "model", "status")

    def __init__(
        self,
        status: int,
        content_type: bytes,
        body: Buffer,
        headers: Fields = (),
        model: str = "",
        file: FileBody | None = None,
    ) -> None:
        """Store the attributes; they do not change."""
        self.file = file
        self.status = status
        self.content_type = content_type
        self.body = body
        self.headers = headers
        self.model = model


Endpoint = Callable[[Call], Deferred[Any]]
"""Answers a call with a Deferred of a Reply, or of a result that the call's plan makes a Reply of.

The router asks the plan when it handles the result anyway. A callback of the endpoint's own, on the
Deferred of each request, would cost a microsecond more.
"""
