"""Where the server listens: TCP, a Unix socket, or sockets that the service manager opened.

Sockets are opened here, with the operating system's own means, so that every event loop listens in
the same way.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from batcher.config.settings import ServerSettings
from batcher.core.systemd_sockets import SYSTEMD_DESCRIPTORS
from batcher.errors import ConfigError
from batcher.frontends.listening.tls import Tls

ACCEPTS_PER_TURN = 64
"""Connections that are taken in one turn of the loop: some milliseconds of work, so that a flood
does not hold up the clients that are there.
"""

ACCEPT_PAUSE_S = 1.0
"""Seconds in which no connection is taken, once the system had no descriptor or memory for one: the
system would say so in every turn.
"""

BACKLOG_CONNECTIONS = 4096
"""Connections that may wait to be accepted: the kernel must not refuse a burst of clients."""

IPV6_ANY = "::"
"""The host that stands for all addresses of both families, as an empty host does."""

_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""Errors of an address that this machine does not have, such as any of IPv6 where that is off."""


_PORT_ADVICE = {
    errno.EADDRINUSE: "; another program has port {port}: end it, or choose another port by "
    "`--port 8090`, or the setting `port` where there is no command; 0 lets the system choose",
    errno.EACCES: "; port {port} needs more rights: choose one from 1024 on, as by `--port 8090`",
}
"""What an operator can do about an error, by its number."""


class Listening(Protocol):
    """Open ports."""

    def close(self) -> Any:
        """Take no more connections than those that the kernel has completed already.

        Returns a Deferred or None.
        """

    def renew(self, tls: Tls) -> None:
        """Show clients that connect from now on the certificate in the files of `tls`.

        The port had TLS before.
        """


def open_sockets(settings: ServerSettings, base: Path) -> list[socket.socket]:
    """Return sockets that listen.

    The sockets are those that the service manager passed, else a Unix socket, else TCP sockets.

    Args:
        settings: say where.
        base: the folder that relative paths start from.

    Raises:
        ConfigError: the setting cannot be used.
        OSError: the address is taken, or not ours.
    """
    passed = _passed_sockets()
    if passed:
        return passed
    if settings.unix_socket is not None:
        mode = int(settings.unix_socket_mode, 8)
        return [_unix_socket(base / settings.unix_socket, mode)]
    return _http_sockets(settings)


def address_of(listener: socket.socket, tls: bool) -> str:
    """Return where clients find `listener`, as a URL or `unix:` and a path."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"


def take_connections(listener: socket.socket, most: int) -> Iterator[socket.socket]:
    """Yield connections that the kernel has completed, at most `most` of them.

    Raises:
        OSError: the system has no descriptor, or no memory, for another one.
    """
    for _ in range(most):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            continue  # the client is gone again
        yield connection


def take_all_and_close(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield all connections that the kernel has completed, then close `listener`.

    A listener that is closed resets connections that nobody has taken.
    """
    with listener:
        listener.setblocking(False)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # no connection is left, or its client is gone again
                return
            yield connection


def close_listeners(listeners: list[socket.socket]) -> None:
    """Close `listeners`; a Unix socket's file goes with it if it was made here."""
    for listener in listeners:
        if listener.family == socket.AF_UNIX and not SYSTEMD_DESCRIPTORS:
            with suppress(OSError):
                os.unlink(listener.getsockname())
        listener.close()


def shut_listeners(listeners: list[socket.socket]) -> None:
    """Have `listeners` take no connection, in any process that has them; closing would not do."""
    for listener in listeners:
        with suppress(OSError):  # another process was first
            listener.shutdown(socket.SHUT_RDWR)


def _passed_sockets() -> list[socket.socket]:
    found = [socket.socket(fileno=descriptor) for descriptor in SYSTEMD_DESCRIPTORS]
    for listener in found:
        if listener.type != socket.SOCK_STREAM or not listener.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            raise ConfigError(
                f"expected listening stream sockets from the service manager; got {listener}"
            )
        listener.set_inheritable(False)
        listener.setblocking(False)
    return found


def _unix_socket(path: Path, mode: int) -> socket.socket:
    """Return a Unix socket whose file has the permissions `mode`, whatever the umask."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not is_served(path):
            path.unlink()  # left behind by a server that was killed
        listener.bind(str(path))
        path.chmod(mode)  # before `listen`: until then nobody can connect
        listener.listen(BACKLOG_CONNECTIONS)
        listener.setblocking(False)
    except OSError as err:
        listener.close()
        raise OSError(err.errno, f"cannot listen on {path}: {err.strerror}") from err
    return listener


def is_served(path: Path) -> bool:
    """Return whether some program listens on the Unix socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def _http_sockets(settings: ServerSettings) -> list[socket.socket]:
    try:
        return tcp_sockets(settings.host, settings.port, settings.reuse_port)
    except OSError as err:
        where = f"{settings.host}:{settings.port}"
        advice = _PORT_ADVICE.get(err.errno or 0, "").format(port=settings.port)
        raise OSError(err.errno, f"cannot listen on {where}: {err.strerror}{advice}") from err


def tcp_sockets(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    """Return a socket that listens for each address of `host` that this machine has.

    Arguments and errors are those of `bound_sockets`.
    """
    found = bound_sockets(host, port, reuse_port)
    try:
        for each in found:
            each.listen(BACKLOG_CONNECTIONS)
    except OSError:  # another program was faster
        close_listeners(found)
        raise
    return found


def bound_sockets(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    """Return a socket that is bound to each address of `host` that this machine has.

    With port 0 all get the port that the system chose for the first. Where IPv6 is off, only one of
    the two addresses of `localhost` can be had: clients that ask for the name find it.

    Raises:
        OSError: no address can be had, one is taken, or `host` cannot be a host's name.
    """
    found: list[socket.socket] = []
    missing: list[OSError] = []
    try:
        for row in _rows(host, port):
            try:
                found.append(_tcp_socket(*row, found, reuse_port))
            except OSError as err:
                if err.errno not in _NOT_OURS:
                    raise
                missing.append(err)
        if not found:
            raise missing[0]
    except OSError:
        close_listeners(found)
        raise
    return found


def _rows(host: str, port: int) -> list[tuple[int, int, int, tuple[Any, ...]]]:
    """Return family, kind, protocol and address for each address of the host, once."""
    # Two sockets instead of one for both families: IPv4 clients keep their own addresses then.
    asked = None if host in ("", IPV6_ANY) else host
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        rows = socket.getaddrinfo(asked, port, type=kind, flags=passive)
    except UnicodeError as err:  # such as `a..b`
        expected = "expected a name with labels of 1 to 63 characters between dots"
        raise OSError(errno.EINVAL, f"{expected}: {err}") from err
    return [(row[0], row[1], row[2], row[4]) for row in dict.fromkeys(rows)]


def _tcp_socket(
    family: int,
    kind: int,
    protocol: int,
    address: tuple[Any, ...],
    earlier: list[socket.socket],
    reuse_port: bool,
) -> socket.socket:
    """Return a socket that is bound to `address`, with the port of the `earlier` ones if any."""
    listener = socket.socket(family, kind, protocol)
    port = earlier[0].getsockname()[1] if earlier else address[1]
    try:
        _bind(listener, (address[0], port, *address[2:]), reuse_port)
    except OSError:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, address: tuple[Any, ...], reuse_port: bool) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    listener.setblocking(False)
