"""Fetches the files that clients name in place of inputs.

    all addresses are checked --> each is kept, and fresh ---------------------> its content
                             '--> else a thread of the pool: kept, and still the same? read it

The files of a request are fetched side by side, as far as threads are free, and end together: with
the first that fails, when the client leaves, and at the deadline. A file that two inputs name is
fetched once.

| what is bounded | by |
|---|---|
| fetches at a time | the threads of the pool, which clients share fairly |
| fetches that wait | the pool's tasks |
| bytes of one file, and of all files of a request | `max_body_bytes`, as of a body |
| bytes of files that wait for others of their requests, and of bodies beside | `max_buffer_bytes` |
| files of a request | `MAX_FILES` |
| time | the request's deadline |

Requests that name the same file at the same time do not share one fetch: each has its own deadline
and its own client. But a fetch that has waited for a thread finds what another one has brought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.core.error_text import brief
from batcher.core.references import BUCKETS, InputSources, Reference
from batcher.errors import BatcherError, BuffersFull, DeadlineExceeded, InvalidInput, TooLarge
from batcher.serving.references.bucket import BucketSource
from batcher.serving.references.kept import Kept, KeptFiles
from batcher.serving.references.metrics import FetchCounts
from batcher.serving.references.source import Fetch, Fetched, GivenUp, Source
from batcher.serving.references.web import WebSource
from batcher.serving.repository.stores.opening import open_bucket
from batcher.workers.pool import CpuPool

MAX_FILES: Final = 128
"""Files of one request. To check as many addresses takes the loop half a millisecond."""

MAX_AT_ONCE: Final = 16
"""Files of one request that are fetched, or wait for a thread, at a time: to begin one takes the
loop some 20 us.
"""

OpenSource = Callable[[Reference, InputSources], Source]


class FetchRules(NamedTuple):
    """What may be fetched.

    Attributes:
        is_on: whether there are prefixes of the operator.
        sources: these prefixes.
        max_bytes: most bytes of one file, and of all files of a request.
    """

    is_on: bool
    sources: InputSources
    max_bytes: int

    def check_together(self, nbytes: int) -> None:
        """Raise TooLarge if a request's files have too many bytes together. Any thread."""
        if nbytes > self.max_bytes:
            raise TooLarge(
                f"ref: expected files of at most {self.max_bytes} bytes together; got more"
            )


def rules_of(settings: ServerSettings) -> FetchRules:
    """Return what `settings` allow."""
    public, private = settings.input_sources, settings.private_input_sources
    sources = InputSources(public, private)
    return FetchRules(bool(public or private), sources, settings.max_body_bytes)


def open_source(reference: Reference, sources: InputSources) -> Source:
    """Return what reads the file `reference`, and others of its bucket. Raises ConfigError."""
    if reference.scheme in BUCKETS:
        address = f"{reference.scheme}://{reference.host}"
        return BucketSource(address, open_bucket(address))
    return WebSource(sources)


class InputFetcher:
    """Fetches files by address, for as long as somebody waits for them. Reactor thread.

    Attributes:
        is_on: whether clients may name files in place of inputs.
        max_image_pixels: most pixels of a picture that was fetched.
        rules: what may be fetched.
    """

    def __init__(
        self,
        settings: ServerSettings,
        pool: CpuPool,
        seconds: Callable[[], float],
        counts: FetchCounts,
        open_source: OpenSource = open_source,
    ) -> None:
        """Fetch what `settings` allow, on threads of `pool`; `seconds` is the pool's clock.

        `counts` count what becomes of files.
        """
        self._pool = pool
        self._counts = counts
        self._seconds = seconds
        self._open_source = open_source
        self._held = 0
        self.follow(settings)

    def follow(self, settings: ServerSettings) -> None:
        """Fetch what `settings` allow from now on; nothing is kept of what was fetched before."""
        self.rules = rules_of(settings)
        self.is_on = self.rules.is_on
        self.max_image_pixels = settings.max_image_pixels
        self._ttl = settings.input_cache_ttl_s
        self._max_held = settings.max_buffer_bytes
        self._kept = KeptFiles(settings.input_cache_bytes)
        self._sources: dict[tuple[str, str], Source] = {}

    def fetch(
        self, addresses: Sequence[str], deadline: float, client: str, beside: int = 0
    ) -> Deferred[dict[str, bytes]]:
        """Return the content of each of `addresses`, one or more; cancelling ends the fetches.

        They have until `deadline`, in seconds, and use the share of `client` of the threads.
        Meanwhile `beside` bytes of the request wait for them.
        Raises, or fails with, InvalidInput, InputMissing, TooLarge, InputSourceFailed,
        DeadlineExceeded, BuffersFull or QueueFull.
        """
        if not self.is_on:
            raise InvalidInput("ref: expected values; this server fetches no files (input_sources)")
        # A short body may name one file thousands of times.
        wanted = dict.fromkeys(addresses)
        if len(wanted) > MAX_FILES:
            raise InvalidInput(f"ref: expected at most {MAX_FILES} files in one request; got more")
        found = {address: self._find(address) for address in wanted}
        request = _Request(self, found, deadline, client)
        request.hold(beside)
        request.begin()
        return request.deferred

    def _find(self, address: str) -> Reference:
        try:
            return self.rules.sources.find(address)[0]
        except InvalidInput as err:
            raise InvalidInput(f"ref: {err}") from None

    def one(self, reference: Reference, deadline: float, client: str) -> Deferred[bytes]:
        """Return the content of one file, as `fetch` does."""
        address = reference.address
        kept = self._kept.peek(address)
        if kept is not None and self._seconds() < kept.until:
            self._kept.put(address, kept)
            self._counts.count("kept")
            return succeed(kept.content)
        fetch = Fetch(self.rules.max_bytes, deadline, self._seconds)
        read = partial(self._read, self._kept, self._sources, reference, fetch)
        done = self._pool.run(0, deadline, read, client)
        return done.addCallbacks(
            self._keep, self._give_up, (address, self._kept), errbackArgs=(fetch, address)
        )

    def _read(
        self,
        files: KeptFiles,
        sources: dict[tuple[str, str], Source],
        reference: Reference,
        fetch: Fetch,
    ) -> tuple[str, Fetched]:
        """Return a file, which may be kept by now, behind what became of it.

        A thread of the pool for inputs.
        """
        kept = files.peek(reference.address)
        if kept is not None and self._seconds() < kept.until:
            return "kept", Fetched(kept.content, kept.tag)
        is_web = reference.scheme not in BUCKETS
        of = ("web", "") if is_web else (reference.scheme, reference.host)
        source = sources.get(of)
        if source is None:  # two threads may make two, of which one stays
            source = sources[of] = self._open_source(reference, self.rules.sources)
        name = reference.address if is_web else reference.name
        found = source.read(name, kept.tag if kept is not None else "", fetch)
        if found is not None:
            return "fetched", found
        assert kept is not None, "a file that has no tag is never the same still"
        return "unchanged", Fetched(kept.content, kept.tag)

    def _keep(self, read: tuple[str, Fetched], address: str, files: KeptFiles) -> bytes:
        outcome, fetched = read
        content = fetched.content
        self._counts.count(outcome, len(content) if outcome == "fetched" else 0)
        if outcome != "kept":
            files.put(address, Kept(*fetched, self._seconds() + self._ttl))
            self._counts.kept = self._kept.nbytes
        return content

    def _give_up(self, failure: Failure, fetch: Fetch, address: str) -> Failure:
        """Have the thread end; the failure goes on, and a deadline's names the address."""
        fetch.is_given_up = True
        self._counts.count("failed")
        # The thread may see the end of the time before the pool does.
        if failure.check(DeadlineExceeded, GivenUp):
            at = brief(address, 200)
            return Failure(DeadlineExceeded(f"the deadline passed while {at} was being fetched"))
        return failure

    def hold(self, nbytes: int) -> None:
        """Count `nbytes` bytes that wait for other files of their request, or wait no more.

        Raises BuffersFull: the bytes of all requests would be too many.
        """
        if nbytes > 0 and self._held + nbytes > self._max_held:
            raise BuffersFull("the files that requests wait for have no place at the moment")
        self._held += nbytes


class _Request:
    """The files of one request. Reactor thread.

    Attributes:
        deferred: fires with the content of each file, by its address as the client wrote it.
    """

    def __init__(
        self, fetcher: InputFetcher, wanted: dict[str, Reference], deadline: float, client: str
    ) -> None:
        self.deferred: Deferred[dict[str, bytes]] = Deferred(lambda _: self._end())
        self._fetcher = fetcher
        self._left = list(reversed(wanted.items()))
        self._count = len(wanted)
        self._deadline, self._client = deadline, client
        self._running: set[Deferred[bytes]] = set()
        self._contents: dict[str, bytes] = {}
        self._nbytes = self._held = 0  # of the contents; and of all that waits
        self._ended = self._is_beginning = False

    def hold(self, nbytes: int) -> None:
        """Count `nbytes` bytes that wait until the end. Raises BuffersFull."""
        self._fetcher.hold(nbytes)
        self._held += nbytes

    def begin(self) -> None:
        """Begin as many fetches as may run at once."""
        if self._is_beginning:  # a file that is kept is here at once
            return
        self._is_beginning = True
        while self._left and len(self._running) < MAX_AT_ONCE and not self._ended:
            address, reference = self._left.pop()
            try:
                one = self._fetcher.one(reference, self._deadline, self._client)
            except BatcherError:
                self._fail(Failure())
                break
            self._running.add(one)
            one.addCallbacks(self._got, self._failed, (address, one), errbackArgs=(one,))
        self._is_beginning = False

    def _got(self, content: bytes, address: str, one: Deferred[bytes]) -> None:
        self._running.discard(one)
        if self._ended:
            return
        self._contents[address] = content
        self._nbytes += len(content)
        try:
            self._fetcher.rules.check_together(self._nbytes)
            self.hold(len(content))
        except BatcherError:
            self._fail(Failure())
            return
        if len(self._contents) == self._count:
            self._end()
            self.deferred.callback(self._contents)
        else:
            self.begin()

    def _failed(self, failure: Failure, one: Deferred[bytes]) -> None:
        self._running.discard(one)
        self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        if not self._ended:  # else it is the end of a fetch that nobody waits for
            self._end()
            self.deferred.errback(failure)

    def _end(self) -> None:
        """Let go of everything."""
        self._ended = True
        self._fetcher.hold(-self._held)
        self._held = 0
        running, self._running = self._running, set()
        for one in running:
            one.cancel()
