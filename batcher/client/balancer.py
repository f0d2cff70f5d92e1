"""The servers of a client that has several: who is asked, who is ejected, and who is listed now.

One thread of its own looks after the servers, and only while there are calls:

    a call begins -> is something due? -> a thread asks the registry, probes servers, and ends

So a client without calls asks nobody, no call waits for a registry (but the first one, which knows
no server yet), and the three forms of the client share all of this. The thread is a daemon: it
keeps no program from ending.

A registry that does not answer, or lists nobody, changes nothing: the last list stays, and servers
of that list that are gone are ejected as any other that fails. Refused alternative: to believe an
empty list. A registry that was started anew is empty until all servers have been heard of again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from threading import Lock, Thread
from time import monotonic
from typing import Any
from urllib.parse import unquote

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.errors import AnswerLost, ClientClosed, ClientFailure, NotConnected
from batcher.client.listed_server import MAX_SERVERS, ListedServer
from batcher.client.registries.registry import Source
from batcher.client.server_address import checked_address
from batcher.client.server_list import ServerList, Upstream
from batcher.client.shared_sockets import OF_THIS_PROCESS
from batcher.core.error_text import message
from batcher.core.registry_address import without_secrets

RETRY_S = 1.0
"""Seconds after which a registry that did not answer is asked again."""

MAX_REASON_CHARS = 300
"""Longest reason of a registry's that an error repeats."""


class Listed:
    """A list that the caller gave: it never changes."""

    place = "the list"
    period_s = float("inf")

    def __init__(self, servers: Sequence[ListedServer]) -> None:
        """List these."""
        self._servers = servers

    def servers(self) -> Sequence[ListedServer]:
        """Return the servers."""
        return self._servers

    def close(self) -> None:
        """Do nothing."""


class Balancer:
    """The servers of one client. Any thread.

    Args:
        source: lists the servers.
        make: returns the connections to the server at an address; runs where the calls do.
        probe: returns whether the server at an address is ready; runs on the client's thread.
        seconds: a clock that never goes back.

    Attributes:
        is_known: whether there has been a list.
        is_closed: whether the client is closed.
    """

    def __init__(
        self,
        source: Source,
        make: Callable[[str], Any],
        probe: Callable[[str], bool],
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """Ask nobody yet; the class says what the arguments are."""
        self._source = source
        self._make = make
        self._probe = probe
        self._seconds = seconds
        self._list = ServerList()
        self._list_at = 0.0  # when the list is to be asked for
        self._reason = ""
        self._waiting: list[Callable[[], object]] = []
        self.is_known = False
        self.is_closed = False
        self._start()
        OF_THIS_PROCESS.add(self)
        if isinstance(source, Listed):
            self._follow(source.servers())

    @property
    def calls(self) -> list[Any]:
        """The connections to all servers that were asked."""
        with self._lock:
            return [each.calls for each in self._list.upstreams if each.calls is not None]

    def wait(self, wake: Callable[[], object]) -> bool:
        """Return False if servers are known; else have `wake` called when that was asked for.

        `wake` is called once, on any thread, also where no server has been found.
        """
        with self._lock:
            is_waiting = not self.is_known and not self.is_closed
            if is_waiting:
                self._waiting.append(wake)
        if is_waiting:
            self._look_after()
        return is_waiting

    def take(self, model: str, tried: Collection[Upstream]) -> Upstream:
        """Return the server of the next call; the caller gives it back.

        Raises:
            ClientClosed: the client is closed.
            NotConnected: there is none, or none to which a connection can be made.
        """
        now = self._seconds()
        with self._lock:
            self._check_open()
            upstream = self._list.take(model, tried, now)
            gone = self._forgotten()
            is_due = now >= self._due_at and not self._is_working
        _end(gone)
        if is_due:
            self._look_after()
        if upstream is None:
            raise NotConnected(
                f"expected servers from {self._source.place}; got none: {self._reason}"
            )
        if upstream.calls is None:
            self._connect(upstream)
        return upstream

    def again(self, upstream: Upstream) -> None:
        """Count one more call to a server that was taken before.

        Raises:
            ClientClosed: the client is closed.
            NotConnected: it is forgotten.
        """
        with self._lock:
            self._check_open()
            if upstream.calls is None:
                raise NotConnected(
                    "expected the server that may have run the request; it is listed no more"
                )
            upstream.outstanding += 1

    def give_back(self, upstream: Upstream, failure: BaseException | None) -> None:
        """Count a call as ended, with a result (None) or why there is none."""
        with self._lock:
            self._list.give_back(upstream, failure, self._seconds())
            self._plan()
            gone = self._forgotten()
        _end(gone)

    def has_other(self, model: str, tried: Collection[Upstream]) -> bool:
        """Return whether there is an able server that a call has not been to."""
        with self._lock:
            return self._list.has_other(model, tried, self._seconds())

    def close(self) -> None:
        """Ask for no more lists, and let no call begin; who waits for a list is told."""
        with self._lock:
            self.is_closed = True
        self._wake()
        if not isinstance(self._source, Listed):
            self._look_after()  # on a thread: some take seconds to say goodbye

    def begin_anew(self) -> None:
        """Forget the thread of the process that this one was forked from."""
        self._start()
        self._waiting = []
        self._list.begin_anew()

    def _start(self) -> None:
        self._lock = Lock()
        self._is_working = False
        self._due_at = 0.0

    def _look_after(self) -> None:
        """Begin to do what is due, unless that has begun."""
        with self._lock:
            if self._is_working:
                return
            self._is_working = True
        try:
            start_daemon(self._work)
        except RuntimeError:  # the system has no more threads, or the program ends
            if self.is_closed:
                self._work()
            else:  # later, then
                self._is_working = False
                self._wake()

    def _work(self) -> None:
        """Do what is due; for a closed client let go of the source. The client's thread."""
        while not self.is_closed:
            now = self._seconds()
            with self._lock:
                probed = self._list.next_probe()
                # Who began to wait a moment ago may have missed the last answer.
                asks = now >= self._list_at or bool(self._waiting)
                probes = probed is not None and now >= probed.probe_at
                if not asks and not probes and not self.is_closed:
                    self._is_working = False
                    self._plan()
                    return
            if asks:
                self._ask()
            elif probes and probed is not None:
                self._probe_one(probed)
        with suppress(Exception):  # whatever a library for a registry comes up with
            self._source.close()

    def _ask(self) -> None:
        try:
            found = self._source.servers()
            self._reason = "it lists nobody"
        except Exception as err:  # as above
            found = []
            self._reason = _reason(err)
        self._follow(found)
        self._wake()

    def _follow(self, found: Sequence[ListedServer]) -> None:
        """Keep a list; one that has no server of ours changes nothing."""
        servers = [each for each in found if not _fault(each.address)][:MAX_SERVERS]
        if found and not servers:
            self._reason = _fault(found[0].address)
        with self._lock:
            self._list_at = self._seconds() + (self._source.period_s if servers else RETRY_S)
            if servers:
                self._list.follow(servers)
                self.is_known = True
            self._plan()

    def _probe_one(self, upstream: Upstream) -> None:
        is_ready = False
        with suppress(Exception):  # as above: a probe that fails in whatever way finds nobody
            is_ready = self._probe(upstream.server.address)
        with self._lock:
            self._list.probed(upstream, is_ready, self._seconds())

    def _check_open(self) -> None:
        if self.is_closed:
            raise ClientClosed("expected an open client; got a closed one")

    def _connect(self, upstream: Upstream) -> None:
        """Have connections to a server that was taken; one that can have none is ejected."""
        with self._lock:
            self._check_open()
            if upstream.calls is not None:
                return
            try:
                upstream.calls = self._make(upstream.server.address)
            except Exception as err:  # a name for which there can be no TLS, say
                failure = NotConnected(f"expected a connection; got none: {_reason(err)}")
                self._list.give_back(upstream, failure, self._seconds())
                self._plan()
                raise failure from err

    def _forgotten(self) -> list[Any]:
        """Return the connections to servers that are forgotten now; the caller ends them."""
        gone = self._list.forget()
        found = [each.calls for each in gone if each.calls is not None]
        for each in gone:
            each.calls = None  # now, since `again` looks for that
        return found

    def _plan(self) -> None:
        """Note when there is something to do."""
        probed = self._list.next_probe()
        self._due_at = self._list_at if probed is None else min(self._list_at, probed.probe_at)

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()


class Course:
    """The way of one call: which servers it has been to, and whether it must stay."""

    __slots__ = ("_balancer", "_last", "_model", "_stays", "_tried")

    def __init__(self, balancer: Balancer, attempts: Attempts[Any]) -> None:
        """Begin a call."""
        self._balancer = balancer
        self._model = _model_of(attempts.path)
        self._tried: list[Upstream] = []
        self._last: Upstream | None = None
        self._stays = False

    def take(self, attempts: Attempts[Any]) -> Upstream:
        """Return the server of the next attempt; it is given back to the balancer.

        Raises:
            NotConnected: there is none.
        """
        if self._stays and self._last is not None:
            self._balancer.again(self._last)
        else:
            self._last = self._balancer.take(self._model, self._tried)
        options: ClientOptions = self._last.calls.options
        attempts.go_to(options.habits)
        return self._last

    def next_wait(
        self, attempts: Attempts[Any], failure: ClientFailure, now: float, jitter: float
    ) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            ClientFailure: `failure` itself, if there is no next attempt.
        """
        if self._last is not None and self._last not in self._tried:
            self._tried.append(self._last)
        has_other = not self._stays and self._balancer.has_other(self._model, self._tried)
        is_lost = isinstance(failure, AnswerLost) and attempts.is_keyed
        wait = attempts.next_wait(failure, now, jitter, has_other and not is_lost)
        # Only the server that may have run the request knows the call by its key.
        self._stays = self._stays or is_lost
        return wait


def start_daemon(function: Callable[[], object]) -> None:
    """Run `function` on a thread of its own. Raises RuntimeError if the system has no more."""
    Thread(target=function, name="batcher-servers", daemon=True).start()


def _end(gone: Sequence[Any]) -> None:
    """End the connections to servers that are forgotten."""
    for calls in gone:
        calls.close()


def _fault(address: str) -> str:
    """Return why no server can be at `address`, as a registry may list it; empty for none."""
    try:
        checked_address(address)
    except ValueError as err:
        return _reason(err)
    return ""


def _reason(error: Exception) -> str:
    return without_secrets(message(error))[:MAX_REASON_CHARS] or type(error).__name__


def _model_of(path: str) -> str:
    """Return the model that a route is of; empty for none."""
    _, _, model = path.partition("/models/")
    return unquote(model.partition("/")[0])
