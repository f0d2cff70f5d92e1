"""The connection of this process to a cluster of Ray: one for all models.

Ray is imported when the first model asks for it. The process is a driver of Ray: when the process
ends, however suddenly, Ray ends its actors.

| what ends | what becomes of the connection |
|---|---|
| the head of the cluster, and it is back within a minute | Ray itself goes on |
| the node, which is Ray's process on this machine | it is lost, with all actors |
| the connection, by `ray.shutdown()` of somebody else in this process | likewise |

A node ends by itself once it is without the head for a minute, or finds another cluster there. A
head that is started anew is another cluster. A lost connection is ended, and the next actor that is
asked for has a new one made, as soon as a head listens at the address again.

What to beware of:

- `ray.init` waits for the cluster, and on the main thread takes the handler of SIGTERM, which is
  the server's. Here it runs on a thread that asks for an actor.
- Once Ray has lost the head of the cluster for a minute, Ray ends the process, from C++. Other
  models may be served there, so Ray is told to wait for the head. Then whatever asks a head that is
  not there waits as long, so it is found out before whether somebody listens at its address.
- Calls that wait when a connection ends are never answered by Ray. They fail here. Ray tells of no
  end: a connection is known by its node and job, and is lost once Ray has another one, or none.
- Ray's C++ puts a handler of its own into the system's table when it connects, and none when the
  connection ends: then the process would die of SIGTERM. The server's own is put back both times.
- A call without a connection has Ray connect by itself, and even start a cluster of its own where
  there is none. Ray is told not to.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from ctypes import PYFUNCTYPE, c_int, c_void_p, pythonapi
from functools import partial
from importlib import import_module
from signal import SIGTERM
from socket import AF_UNIX, create_connection, socket
from threading import Lock
from time import monotonic
from typing import Any

from batcher.core.error_text import cut, message
from batcher.core.installing import how_to_install
from batcher.errors import ModelLoadError

HEAD_WAIT_S = 10**6
"""Seconds that Ray waits for the head of the cluster to come back: eleven days, for ever."""

CONNECT_TIMEOUT_S = 5.0
"""Seconds for a connection to the head of the cluster, which is on the same network."""

TURN_TIMEOUT_S = 60.0
"""Seconds that one who asks for an actor waits while Ray connects for another: Ray takes a few,
unless the head is lost meanwhile.
"""

ENDING_S = 10.0
"""Seconds from the end of the node until another cluster is looked for: a cluster that ends loses
nodes before its head, and Ray would connect to a head that is about to end.
"""

_MAX_REASON_CHARS = 600
"""Characters of what Ray says of an actor's end: it ends with a list of what it might have been."""

_LEFT_OUT = ("class_name:", "actor_id:", "namespace:", "name:")
"""Lines of Ray's errors that tell an operator nothing."""

handler_of = PYFUNCTYPE(c_void_p, c_int)(("PyOS_getsig", pythonapi))
set_handler = PYFUNCTYPE(c_void_p, c_int, c_void_p)(("PyOS_setsig", pythonapi))
"""The system's handler of a signal; `signal.signal` would have to run on the main thread."""

_WITHOUT = (
    "ray.address: expected a cluster of Ray that this machine is a node of, at {} (`ray start` "
    "makes it one); got none"
)


class Connection:
    """A connection to a cluster, and the calls of actors there that wait for an answer.

    Attributes:
        ray: the module `ray`.
        address: address of the cluster as the settings have it, empty if a program that embeds the
            server has connected by itself.
    """

    def __init__(
        self, ray: Any, address: str = "", node: str = "", on_sigterm: int | None = None
    ) -> None:
        """Hold on to a connection, which `ray` has.

        Args:
            ray: see the attribute.
            address: see the attribute.
            node: path of the socket of Ray's process on this machine; where it is empty, the
                connection is another's, and never counts as lost.
            on_sigterm: the system's handler of SIGTERM before there was the connection.

        Any thread.
        """
        self.ray = ray
        self.address = address
        self._node = node
        self._on_sigterm = on_sigterm
        self._id = _id_now(ray)
        self._lost_at: float | None = None  # belongs to whoever has the turn to connect
        self._lock = Lock()  # guards the two below
        self._waiting: set[Future[Any]] = set()
        self._has_ended = False

    def call(self, send: Callable[[], Future[Any]]) -> Future[Any]:
        """Have `send` call an actor; the Future fails, too, when the connection ends.

        Raises what `send` raises, unless the connection is lost. Any thread.
        """
        answer: Future[Any] = Future()
        with self._lock:
            if self._has_ended:
                answer.set_exception(_lost())
                return answer
            self._waiting.add(answer)
        try:
            send().add_done_callback(partial(self._pass_on, answer))
        except Exception:
            waits = self._take(answer)
            if not self.is_lost():
                raise
            if waits:
                answer.set_exception(_lost())
        return answer

    @property
    def is_foreign(self) -> bool:
        """Whether a program that embeds the server has made the connection. Any thread."""
        return not self._node

    def is_held(self) -> bool:
        """Return whether Ray has this connection, and not another one, or none. Any thread."""
        return _id_now(self.ray) == self._id

    def is_lost(self) -> bool:
        """Return whether the node has ended, or somebody has ended the connection. Any thread."""
        if self._has_ended or not self.is_held():
            return True
        if self.is_foreign:
            return False
        with socket(AF_UNIX) as end:
            end.settimeout(CONNECT_TIMEOUT_S)
            try:
                end.connect(self._node)
            except (ConnectionRefusedError, FileNotFoundError):
                return True
            except OSError:  # it is there, and too busy to accept
                return False
        return False

    def is_over(self) -> bool:
        """Return whether the node has ended, and its cluster has had the time to end as well.

        Raises ConnectionError: the cluster may be about to end. Asking thread.
        """
        if not self.is_lost():
            return False
        now = monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if now < self._lost_at + ENDING_S:
            raise ConnectionError("Ray's process on this machine has ended")
        return True

    def end(self) -> None:
        """Fail the calls that wait, and disconnect if nobody else has. Asking thread."""
        with self._lock:
            self._has_ended = True
            waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            answer.set_exception(_lost())
        if self.is_foreign:
            return
        try:
            if self.is_held():
                self.ray.shutdown()
        finally:
            set_handler(SIGTERM, self._on_sigterm)

    def _pass_on(self, answer: Future[Any], call: Future[Any]) -> None:
        """Answer as Ray has, unless the connection has ended. A thread of Ray."""
        if not self._take(answer):
            return
        if (error := call.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(call.result())

    def _take(self, answer: Future[Any]) -> bool:
        """Return whether `answer` waits, and have it wait no longer. Any thread."""
        with self._lock:
            waits = answer in self._waiting
            self._waiting.discard(answer)
        return waits


_turn = Lock()
_current: Connection | None = None


def connected(address: str) -> Connection:
    """Return the connection to the cluster at `address`.

    A program that is connected already, and embeds the server, stays as it is.

    Raises:
        ModelLoadError: there is no cluster, or no Ray.

    Asking thread.
    """
    if not _turn.acquire(timeout=TURN_TIMEOUT_S):
        raise ModelLoadError(
            f"{_WITHOUT.format(address)} within {TURN_TIMEOUT_S:g} s: Ray waits for its head"
        )
    try:
        return _connected(_imported(), address)
    finally:
        _turn.release()


def _connected(ray: Any, address: str) -> Connection:
    """Return the connection, as `connected` says. Asking thread."""
    global _current
    current = _present(ray)
    if current is not None and current.is_foreign:
        return current
    if current is not None and current.address != address and not current.is_lost():
        raise ModelLoadError(
            f"ray.address: expected {current.address}, to which this process is connected for "
            f"another model; got {address}"
        )
    try:
        is_over = current is not None and current.is_over()
        _check_reachable(address)
        if current is not None and not is_over:
            return current
        if current is not None:
            current.end()
            _current = None
        _current = found = _connect(ray, address)
    except Exception as err:
        raise ModelLoadError(f"{_WITHOUT.format(address)}: {reason_in(err)}") from err
    return found


def _present(ray: Any) -> Connection | None:
    """Return the connection that Ray has. One that somebody has ended ends here, too.

    Asking thread.
    """
    global _current
    if _current is not None and not _current.is_held():
        ended, _current = _current, None
        ended.end()
    if _current is None and ray.is_initialized():
        _current = Connection(ray)
    return _current


def _id_now(ray: Any) -> tuple[str, str] | None:
    """Return the node and the job of the connection that `ray` has; None without. Any thread."""
    if not ray.is_initialized():  # first: Ray may connect by itself to answer what follows
        return None
    try:
        here = ray.get_runtime_context()
        return here.get_node_id(), here.get_job_id()
    except (AttributeError, RuntimeError):  # it is just being ended
        return None


def _connect(ray: Any, address: str) -> Connection:
    """Return a new connection. Asking thread."""
    on_sigterm = handler_of(SIGTERM)
    try:
        context = ray.init(address=address, configure_logging=False, log_to_driver=True)
    except RuntimeError:  # such as that somebody else has connected just now
        raise
    except Exception:  # as where somebody else has just ended a connection
        ray.shutdown()  # else what is half made would be taken for the program's own
        raise
    finally:
        set_handler(SIGTERM, on_sigterm)  # Ray's own writes a stack into the log at each stop
    return Connection(ray, address, context.address_info["raylet_socket_name"], on_sigterm)


def _check_reachable(address: str) -> None:
    """Raise OSError unless somebody listens where the head of the cluster is. Asking thread."""
    # What `ray.init` does with an address, `auto` and RAY_ADDRESS included; there is no public way.
    services = import_module("ray._private.services")
    found: str = services.canonicalize_bootstrap_address_or_die(address)
    host, _, port = found.rpartition(":")
    create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()


def _imported() -> Any:
    """Return the module `ray`; raises ModelLoadError. Asking thread."""
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEAD_WAIT_S))
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        ray = import_module("ray")
    except ModuleNotFoundError as err:
        raise ModelLoadError(
            f"worker: expected the extra ray for `worker: ray`; got none: {err}. It comes with "
            f"{how_to_install('ray')}"
        ) from err
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns of a SIGTERM that it may not take
    return ray


def _lost() -> ConnectionError:
    return ConnectionError("its cluster was lost")


def reason_in(error: BaseException) -> str:
    """Return in one line why a call of an actor has failed. Any thread."""
    lines = [line.strip() for line in message(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_LEFT_OUT)]
    return cut(" ".join(told) or type(error).__name__, _MAX_REASON_CHARS)
