"""`/v1/files` and `/v1/batches`, in OpenAI's form.

The routes are there on every server. Without the setting `jobs.uploads` they say that the operator
has to allow uploads first. Files and batches belong to the API key of their request: under another
key they are unknown. A web page of another origin may not ask (`control_guard.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from batcher.codecs.content_coding import HEAVY_BYTES, plain_body, too_large
from batcher.codecs.formats.json_text import from_json, to_json
from batcher.codecs.heavy import is_heavy
from batcher.codecs.negotiation import media_type
from batcher.codecs.oip.members import object_of as members_of
from batcher.codecs.row_files.batch_lines import EMBEDDINGS, expected_route, model_of
from batcher.core.error_text import brief
from batcher.errors import Forbidden, InvalidInput, UnsupportedMediaType
from batcher.frontends.endpoints.api_key import named_key
from batcher.frontends.endpoints.call import Call, FileBody, Headers, Reply
from batcher.frontends.endpoints.failures import openai_failure_reply
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from batcher.frontends.endpoints.openai_batches import schemas
from batcher.frontends.endpoints.openai_batches.paging import page_of, query_of
from batcher.frontends.endpoints.openai_batches.upload import FilePlace, Upload
from batcher.frontends.endpoints.routing import Route
from batcher.serving.jobs.batches import AskedBatch, Content
from batcher.serving.jobs.uploads import ArrivingFile, owner_of

MOST_FILES, MOST_BATCHES = 10_000, 100
"""Most of a page, as OpenAI has it."""

DEFAULT_BATCHES = "20"

MAX_METADATA = 16
"""Most texts that a client notes with a batch, of the lengths of OpenAI's."""

_MAX_KEY_CHARS, _MAX_VALUE_CHARS = 64, 512
_MEMBERS = ("completion_window", "endpoint", "input_file_id", "metadata")

Shown = dict[str, Any]


class Batches(FilePlace, Protocol):
    """Files and batches of clients. Reactor thread.

    Each method takes the owner, and raises UnknownJob for what is not the owner's.
    """

    def arrive(self, owner: str, declared: int) -> ArrivingFile:
        """Return a place for a file of so many bytes. Raises TooLarge, QueueFull."""

    def files(self, owner: str, page: Callable[[Sequence[Shown]], bytes]) -> Deferred[bytes]:
        """Fire with what `page` makes of what is said of all files, the newest first.

        It runs on a thread.
        """

    def file(self, owner: str, id: str) -> Deferred[Shown]:
        """Fire with what is said of a file."""

    def content(self, owner: str, id: str) -> Deferred[Content]:
        """Fire with where the content of a file is."""

    def remove(self, owner: str, id: str) -> Deferred[Any]:
        """Remove a file. Raises InvalidInput: a batch waits for it."""

    def create(self, owner: str, asked: AskedBatch) -> Deferred[Shown]:
        """Begin a batch; fires with what is said of it. Raises QueueFull."""

    def status(self, owner: str, id: str) -> Shown:
        """Return what is said of a batch."""

    def list(self, owner: str) -> Sequence[Shown]:
        """Return what is said of all batches, the newest first."""

    def cancel(self, owner: str, id: str) -> Deferred[Shown]:
        """End a batch; fires once that is done."""


class BatchRoutes:
    """`/v1/files` and `/v1/batches`, and below them. Reactor thread."""

    def __init__(self, batches: Batches | None, guard: ControlGuard) -> None:
        """Show and change `batches`, for clients that `guard` lets through; None takes none."""
        self._batches = batches
        self._guard = guard

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        files, file, batches, batch = (
            "/v1/files",
            "/v1/files/{id}",
            "/v1/batches",
            "/v1/batches/{id}",
        )
        sink = None if self._batches is None else self.sink
        return (
            _route("POST", files, self.upload, "Upload requests.", schemas.UPLOAD, True, sink),
            _route("GET", files, self.files, "The files of a client.", schemas.FILES),
            _route("GET", file, self.file, "What is known of a file.", schemas.FILE),
            _route("GET", f"{file}/content", self.content, "A whole file.", schemas.CONTENT),
            _route("DELETE", file, self.remove, "Remove a file.", schemas.REMOVED),
            _route("POST", batches, self.create, "Begin a batch of requests.", schemas.CREATE),
            _route("GET", batches, self.all, "The batches of a client.", schemas.BATCHES),
            _route("GET", batch, self.one, "How far a batch is.", schemas.BATCH),
            _route("POST", f"{batch}/cancel", self.cancel, "End a batch.", schemas.BATCH),
        )

    def sink(self, headers: Headers) -> Upload:
        """Return what takes the body of an upload. Raises any BatcherError. Reactor thread."""
        batches = self._allowed(headers)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedMediaType("Content-Encoding: expected none; got another")
        name, parameters = media_type(headers.get(b"content-type", b"").decode("latin-1"))
        if name != "multipart/form-data":
            expected = "Content-Type: expected multipart/form-data"
            raise UnsupportedMediaType(f"{expected}; got {brief(name) if name else 'none'}")
        owner = _owner(headers)
        file = batches.arrive(owner, int(headers.get(b"content-length", b"0")))
        return Upload(batches, file, parameters.get("boundary", ""))

    def upload(self, call: Call) -> Deferred[Reply]:
        """Answer what is said of an uploaded file. Raises and fails as `Upload`."""
        body = call.body
        if not isinstance(body, Upload):
            # In a program whose own site has read the body; or the server takes no uploads.
            upload = self.sink(call.head.headers)
            upload.feed(bytes(plain_body(body)))
            body = upload.finish()
        return body.done.addCallback(json_reply)

    def files(self, call: Call) -> Deferred[Reply]:
        """Answer a page of files. Raises Forbidden, InvalidInput."""
        batches, owner = self._asked(call)
        query = query_of(call.head.query, ("purpose", "order", "after", "limit"))
        order, purpose = query.get("order", "desc"), query.get("purpose", "")
        if order not in ("asc", "desc"):
            raise InvalidInput(f"order: expected asc or desc; got {brief(order)}")

        def page(files: Sequence[Shown]) -> bytes:
            found = [file for file in files if purpose in ("", file["purpose"])]
            ordered = found if order == "desc" else found[::-1]
            return to_json(page_of(ordered, query, MOST_FILES))

        def reply(document: bytes) -> Reply:
            return Reply(200, b"application/json", document)

        return batches.files(owner, page).addCallback(reply)

    def file(self, call: Call) -> Deferred[Reply]:
        """Answer what is said of a file. Raises Forbidden, UnknownJob."""
        batches, owner = self._asked(call)
        return batches.file(owner, _id(call)).addCallback(json_reply)

    def content(self, call: Call) -> Deferred[Reply]:
        """Answer a file. Raises Forbidden, UnknownJob."""
        batches, owner = self._asked(call)

        def send(content: Content) -> Reply:
            file = FileBody(content.path, content.nbytes, batches.run)
            return Reply(200, b"application/octet-stream", b"", file=file)

        return batches.content(owner, _id(call)).addCallback(send)

    def remove(self, call: Call) -> Deferred[Reply]:
        """Remove a file. Raises Forbidden, UnknownJob, InvalidInput."""
        batches, owner = self._asked(call)
        document = {"id": _id(call), "object": "file", "deleted": True}
        return batches.remove(owner, _id(call)).addCallback(lambda _: json_reply(document))

    def create(self, call: Call) -> Deferred[Reply]:
        """Begin a batch. Raises Forbidden, UnknownJob, InvalidInput, DecodingError, QueueFull."""
        batches, owner = self._asked(call)
        if is_heavy(call.body):
            raise too_large(HEAVY_BYTES, " of JSON for a route that infers nothing")
        body = members_of(from_json(plain_body(call.body)), "the body")
        return batches.create(owner, asked_of(body)).addCallback(json_reply)

    def all(self, call: Call) -> Deferred[Reply]:
        """Answer a page of batches. Raises Forbidden, InvalidInput."""
        batches, owner = self._asked(call)
        query = {"limit": DEFAULT_BATCHES, **query_of(call.head.query, ("after", "limit"))}
        return json_reply(page_of(batches.list(owner), query, MOST_BATCHES))

    def one(self, call: Call) -> Deferred[Reply]:
        """Answer how far a batch is. Raises Forbidden, UnknownJob."""
        batches, owner = self._asked(call)
        return json_reply(batches.status(owner, _id(call)))

    def cancel(self, call: Call) -> Deferred[Reply]:
        """End a batch. Raises Forbidden, UnknownJob."""
        batches, owner = self._asked(call)
        return batches.cancel(owner, _id(call)).addCallback(json_reply)

    def _asked(self, call: Call) -> tuple[Batches, str]:
        return self._allowed(call.head.headers), _owner(call.head.headers)

    def _allowed(self, headers: Headers) -> Batches:
        if self._batches is None:
            raise Forbidden("files and batches need the setting `jobs.uploads` of the server")
        self._guard.check(headers)
        return self._batches


def _route(
    method: str,
    pattern: str,
    endpoint: Callable[[Call], Deferred[Reply]],
    summary: str,
    operation: dict[str, Any],
    fast: bool = False,
    sink: Callable[[Headers], Upload] | None = None,
) -> Route:
    return Route(method, pattern, endpoint, summary, operation, fast, openai_failure_reply, sink)


def _id(call: Call) -> str:
    return call.head.arguments["id"]


def _owner(headers: Headers) -> str:
    fields = (headers.get(name, b"").decode("latin-1") for name in (b"x-api-key", b"authorization"))
    return owner_of(named_key(*fields))


def asked_of(body: dict[str, Any]) -> AskedBatch:
    """Return the batch that a client asks for. Raises InvalidInput."""
    unknown = body.keys() - set(_MEMBERS)
    if unknown:
        raise InvalidInput(f"body: expected {', '.join(_MEMBERS)}; got {brief(min(unknown))}")
    endpoint, file = body.get("endpoint"), body.get("input_file_id")
    if endpoint != EMBEDDINGS and not model_of(endpoint):
        raise InvalidInput(f"endpoint: {expected_route(endpoint)}")
    if not isinstance(file, str) or not file:
        raise InvalidInput(f"input_file_id: expected the id of a file; got {brief(file)}")
    if body.get("completion_window") != "24h":
        got = brief(body.get("completion_window"))
        raise InvalidInput(f"completion_window: expected '24h'; got {got}")
    return AskedBatch(str(endpoint), file, _metadata(body.get("metadata")))


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > MAX_METADATA:
        raise InvalidInput(f"metadata: expected at most {MAX_METADATA} texts; got {brief(value)}")
    for name, text in value.items():
        is_short = isinstance(text, str) and len(text) <= _MAX_VALUE_CHARS
        if not is_short or len(name) > _MAX_KEY_CHARS:
            expected = f"texts of at most {_MAX_VALUE_CHARS} characters under names of at most "
            raise InvalidInput(f"metadata: expected {expected}{_MAX_KEY_CHARS}; got {brief(name)}")
    return value
