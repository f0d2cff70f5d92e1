"""`batcher directory`: servers announce themselves there, and clients ask it who is there.

The server's own connections answer, with the server's own bounds on what clients send.
"""

from __future__ import annotations

import click


@click.command(name="directory")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8090, show_default=True, help="TCP port."
)
@click.option(
    "--token",
    envvar="BATCHER_DIRECTORY_TOKEN",
    default="",
    help="What servers and clients have to know. The variable keeps it out of lists of processes.",
)
def directory_command(host: str, port: int, token: str) -> None:
    """List servers that announce themselves, for clients that ask.

    A server does so with `registry: directory://HOST:PORT/SERVICE`, and a client of batcher.client
    asks with the same address.
    """
    from batcher.app.directory.running import run_directory

    run_directory(host, port, token)
