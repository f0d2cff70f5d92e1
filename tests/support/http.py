"""A whole server in memory.

Models whose batches run when they are told to, the connection in front, twisted.web beside it.

Nothing here has a thread or a socket. Time is a `Clock`; threads of the CPU pool run what they are
given at once and their results come back on the next turn of that clock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import Site

from batcher.batching.worker import ConditionListener, Deliver
from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.cors import Cors
from batcher.frontends.endpoints.disclosure import Disclosure, disclosure_of
from batcher.frontends.endpoints.engine import model_named
from batcher.frontends.endpoints.jobs import Jobs
from batcher.frontends.endpoints.openai_batches.routes import Batches
from batcher.frontends.endpoints.routing import Route, Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.web.connection import Connection
from batcher.frontends.web.front import Front
from batcher.frontends.web.http11.reader import Event, Refusal, Request
from batcher.frontends.web.klein_app import klein_site
from batcher.frontends.web.limits import Limits
from batcher.models.protocol import LoadedModel
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer
from batcher.workers.daemon_threads import Task
from batcher.workers.fair_queue import FairQueue
from batcher.workers.memory import MemoryWorker
from tests.support.http_answers import Answer, parse_answers
from tests.support.models import RecordingModel, checked, rows
from tests.support.transports import Client, connect

ROW = rows(1.0).tobytes()
"""One row of the default model, as `application/octet-stream`."""


class ImmediateThreads:
    """The CPU pool's threads, in memory: each task is run before `add` returns."""

    def __init__(self, most: int, name: str, queue: FairQueue[Any]) -> None:
        self._queue = queue

    def add(self, task: Task) -> None:
        self._queue.put(task)
        assert self._queue.take() is task
        task.run()
        self._queue.done(task, 0.0)
        task.ended()

    def remove(self, task: Task) -> bool:
        return False

    def stop(self) -> None:
        pass


class LoadingWorker(MemoryWorker):
    """A worker whose model is loaded when `loaded` fires."""

    def __init__(self, model: RecordingModel, clock: Clock) -> None:
        super().__init__(checked(model), clock)
        self.loaded: Deferred[LoadedModel] = Deferred()

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        super().start(deliver, changed)
        return self.loaded


class LateSite(Site):
    """A site that is made for the first request that comes to it: most tests send it none.

    The rules of all routes take longer to compile than such a test takes.
    """

    def __init__(self, make: Callable[[], Site]) -> None:
        super().__init__(Resource(), parsePOSTFormSubmission=False)
        self.made = cache(make)

    def getResourceFor(self, request: Any) -> Any:
        return self.made().getResourceFor(request)


class MemoryServer:
    """Everything between the bytes and the models, in memory.

    Attributes:
        clock: the only time there is.
        server: the models.
        front: the connections.
        lines: of the access log.
        calls: the Deferreds of every call that reached a route.
    """

    def __init__(
        self,
        *models: RecordingModel,
        base: Path = Path("nowhere"),
        batch_jobs: Jobs | None = None,
        batches: Batches | None = None,
        **settings: Any,
    ) -> None:
        """Serve `models`, by default one that doubles, `batch_jobs` and `batches`.

        `settings` are those of `config.yaml`, relative to `base`.
        """
        self.settings = ServerSettings(**settings)
        self.clock = Clock()
        self.clock.advance(1000)
        with patch("batcher.workers.pool.DaemonThreads", ImmediateThreads):
            self.server = ModelServer(self.clock, self._call_from_thread, self.settings)
        self.lines: list[bytes] = []
        self.calls: list[Deferred[Reply]] = []
        named = partial(model_named, self.server)
        answer_log = AnswerLog(self.clock, self.server.metrics, self.lines.append, named)
        self.repository = ModelRepository(self.server, self.settings, base)
        self.server.traffic.save = lambda *record: succeed(None)  # there is no disk
        cors = Cors(self.settings.cors_origins) if self.settings.cors_origins else None
        disclosure = disclosure_of(self.settings, self.clock.seconds)
        table = routes(self.server, self.repository, self.settings, disclosure, batch_jobs, batches)
        self.router = RecordingRouter(table, answer_log, disclosure, cors, self.calls)
        self.front = RecordingFront(
            self.router,
            LateSite(partial(klein_site, self.router, self.settings.max_body_bytes)),
            Limits.from_settings(self.settings),
            self.clock,
            self.server.metrics,
        )
        self.workers: dict[str, LoadingWorker] = {}
        self.models = models or (RecordingModel(),)
        self.clients: list[Client] = []
        for model in self.models:
            self.add(model).loaded.callback(checked(model).loaded())
        self.front.start()

    def add(self, model: RecordingModel) -> LoadingWorker:
        """Begin to load `model`; fire or fail the `loaded` of the returned worker."""
        worker = LoadingWorker(model, self.clock)
        definition = ModelDefinition(model.spec, "python", Path(), Path())
        with patch("batcher.workers.making.InferenceThread", lambda *_: worker):
            added = self.server.add(definition, self.settings.for_model(model.spec.name))
        added.addErrback(lambda _: None)
        self.workers[f"{model.spec.name}/{model.spec.version}"] = worker
        return worker

    @property
    def model(self) -> RecordingModel:
        """The first model."""
        return self.models[0]

    def connect(self, kind: str, **options: Any) -> Client:
        """Return a new client, over a transport of `kind`.

        `options` as `transports.connect` has them.
        """
        client = connect(kind, self.front, self.clock, **options)
        self.clients.append(client)
        return client

    def turn(self, turns: int = 5) -> None:
        """Let the loop turn a few times; no time passes."""
        for _ in range(turns):
            self.clock.advance(0)

    def hand_over(self) -> int:
        """Let the loop turn, and return how many batches the workers hold."""
        self.turn()
        return sum(len(worker.batches) for worker in self.workers.values())

    def work(self) -> None:
        """Run every batch there is, and those that follow, until nothing is left to do."""
        while self.hand_over():
            for worker in self.workers.values():
                while worker.batches:
                    self.front.burst(worker.perform)
        self.turn()

    def wait(self, seconds: float, step: float = 0.25) -> None:
        """Let `seconds` pass, in small steps, as the sweep would see them."""
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 1e-9:
            self.clock.advance(min(step, left))
        self.turn()

    def check_nothing_is_left(self) -> None:
        """Assert that no connection, request, batch or call is left once all clients are gone."""
        for client in self.clients:
            if not client.closed:
                client.reset()
        self.work()
        assert self.server.metrics.connections == 0
        assert not self.front._connections
        assert not self.front._half_closed
        self.front.buffers.check_invariants()
        assert self.front.buffers.nbytes == 0
        for version in self.server:
            version.scheduler.check_invariants()
            assert version.scheduler.pending == 0
            assert version.scheduler.in_flight_rows == 0
        assert all(call.called for call in self.calls)

    def _call_from_thread(self, function: Any, *arguments: Any) -> None:
        self.clock.callLater(0, self.front.burst, function, *arguments)


class RecordingRouter(Router):
    """A router that remembers the Deferred of every call.

    With `only_klein` the fast connection calls no endpoint itself.
    """

    def __init__(
        self,
        table: tuple[Route, ...],
        answer_log: AnswerLog,
        disclosure: Disclosure,
        cors: Cors | None,
        calls: list[Deferred[Reply]],
    ) -> None:
        super().__init__(table, answer_log, disclosure, cors)
        self._calls = calls
        self.only_klein = False

    def match(self, method: str, path: str) -> Any:
        return None if self.only_klein else super().match(method, path)

    def answer(self, route: Route, call: Call, send: Callable[[Reply], Any]) -> Deferred[Any]:
        answer = super().answer(route, call, send)
        self._calls.append(answer)
        return answer


class RecordingFront(Front):
    """A front that remembers the method of every request on its connections."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.methods: list[str] = []

    def connection(self) -> Connection:
        return RecordingConnection(self)


class RecordingConnection(Connection):
    """A connection of such a front."""

    def __init__(self, front: RecordingFront) -> None:
        super().__init__(front)
        self._methods = front.methods

    def _take(self, event: Event) -> None:
        if isinstance(event, Request):
            self._methods.append(event.head.method)
        elif isinstance(event, Refusal):
            self._methods.append(event.method)
        super()._take(event)


def ask(
    target: str = "/predict",
    body: bytes = b"",
    *headers: tuple[str, str],
    method: str = "",
    version: str = "1.1",
    content_type: str = "application/octet-stream",
) -> bytes:
    """Return a request: a POST if it has a body, else a GET."""
    fields = [("Host", "batcher.test"), *headers]
    if body or method == "POST":
        fields += [("Content-Type", content_type)] if content_type else []
        fields += [("Content-Length", str(len(body)))]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return (
        f"{method or ('POST' if body else 'GET')} {target} HTTP/{version}\r\n{head}\r\n".encode(
            "latin-1"
        )
        + body
    )


def over_connection(server: MemoryServer, request: bytes, kind: str = "loop") -> Answer:
    """Return the one final answer to `request`, sent over the fast connection."""
    client = server.connect(kind)
    client.methods = [request.split(b" ")[0].decode()]
    client.send(request)
    server.work()
    final = [answer for answer in client.answers if answer.status >= 200]
    assert len(final) == 1, bytes(client.received)
    assert client.unparsed == b""
    return final[0]


def over_twisted_web(server: MemoryServer, request: bytes) -> Answer:
    """Return the one answer to `request`, sent to the routes as Klein has them in a site."""
    site = klein_site(server.router, server.settings.max_body_bytes)
    site.reactor, site.timeOut = server.clock, None
    protocol: Any = site.buildProtocol(None)
    transport = StringTransport(lenient=True)
    protocol.makeConnection(transport)
    protocol.dataReceived(request)
    server.work()
    answers, rest = parse_answers(transport.value(), [request.split(b" ")[0].decode()], over=True)
    assert len(answers) == 1, transport.value()
    assert rest == b""
    return answers[0]


STACKS = {"connection": over_connection, "twisted.web": over_twisted_web}
