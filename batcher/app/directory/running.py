"""The process of a directory: its routes behind the server's own connections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.directory import MAX_ENTRY_BYTES, DirectoryRoutes
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.listening.sockets import address_of, tcp_sockets
from batcher.frontends.web.front import Front
from batcher.frontends.web.klein_app import klein_site
from batcher.frontends.web.limits import Limits
from batcher.frontends.web.listening.twisted_ports import twisted_listen
from batcher.serving.metrics import ServerMetrics


def directory_front(clock: Any, token: str) -> Front:
    """Return the connections of a directory; nobody listens yet."""
    metrics = ServerMetrics()
    routes = DirectoryRoutes(clock.seconds, token).routes()
    router = Router(routes, AnswerLog(clock, metrics), Disclosure(clock.seconds))
    limits = replace(Limits.from_settings(ServerSettings()), body=MAX_ENTRY_BYTES)
    return Front(router, klein_site(router, limits.body), limits, clock, metrics)


def run_directory(host: str, port: int, token: str) -> None:
    """Answer until a signal ends the process. Main thread."""
    from twisted.internet import reactor

    try:
        listeners = tcp_sockets(host, port, reuse_port=False)
    except OSError as err:
        raise click.ClickException(
            f"--host, --port: expected an address and a free port; got {host}:{port}: "
            f"{err.strerror}"
        ) from err
    addresses = " and ".join([address_of(each, tls=False) for each in listeners])
    front = directory_front(reactor, token)
    front.start()
    twisted_listen(reactor)(front, listeners, None)
    click.echo(f"directory on {addresses}")
    reactor.run()
