"""Starts a server with `fronts`: what its processes run, and what each has of the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from batcher.app.fronts.front_process import run_front
from batcher.app.fronts.front_settings import for_fronts
from batcher.app.fronts.kept_ports import KeptPorts
from batcher.app.fronts.places import Places
from batcher.app.fronts.supervisor import ENGINE, Supervisor, line_writer, open_places
from batcher.app.log_lines import begin_logging
from batcher.app.reloading import Read
from batcher.config.settings import ServerSettings
from batcher.core.systemd_sockets import SYSTEMD_DESCRIPTORS
from batcher.errors import ConfigError
from batcher.frontends.listening.sockets import close_listeners, is_served, shut_listeners
from batcher.workers.started_processes import kill_started_processes

RunEngine = Callable[[ServerSettings, Path, Any, Read, Places], int]
"""Runs a server whose connections are those of fronts, as `run_server` does."""


def run_with_fronts(
    settings: ServerSettings, base: Path, observer: Any, read: Read, run_engine: RunEngine
) -> int:
    """Serve as `run_server`; `run_engine` runs in a process of its own. Main thread, no others."""
    places = _opened(settings, base, observer)
    if places is None:
        return 1
    say, ports = line_writer(settings.log_format), KeptPorts(settings)
    settings, read = ports.named_in(settings), ports.named_by(read)

    def process(number: int) -> int:
        ports.close()  # this is a copy of the process that keeps them
        if number != ENGINE:
            return run_front(for_fronts(settings), base, places, number)
        # The settings may have been reloaded since this process was started.
        now = _read_again(settings, read, say) if places.ready[0] else settings
        return run_engine(now, base, observer, read, places)

    try:
        return Supervisor(places, partial(_run, process), say).run()
    finally:
        close_last(places.listeners[0])


def _opened(settings: ServerSettings, base: Path, observer: Any) -> Places | None:
    """Open the ports of fronts; None if that fails, and then `observer` hears why."""
    try:
        return open_places(settings, base)
    except (ConfigError, OSError) as err:
        # Only here: the processes that are copies of this one begin logs of their own.
        begin_logging(settings.log_format)
        observer.failed(str(err))
        return None


def close_last(listeners: list[socket.socket]) -> None:
    """Close `listeners`; the file of a Unix socket goes too, if fronts have left it there.

    Fronts remove the file when they close their ports. A server that was started while the last
    answers were due may have the path now.
    """
    first = listeners[0]
    if first.family == socket.AF_UNIX and not SYSTEMD_DESCRIPTORS:
        shut_listeners(listeners)
        with suppress(OSError):  # the file is gone
            if is_served(Path(os.fsdecode(first.getsockname()))):
                first.close()
                return
    close_listeners(listeners)


def _run(process: Callable[[int], int], number: int) -> int:
    """Run the process of that number to its end, and end what it has started."""
    try:
        return process(number)
    finally:
        kill_started_processes()


def _read_again(settings: ServerSettings, read: Read, say: Callable[[str], None]) -> ServerSettings:
    """Return the settings as they are now; those of the start where they are wrong now."""
    try:
        return read()
    except ConfigError as err:
        say(f"the engine starts with the settings of the server's start: {err}")
        return settings
