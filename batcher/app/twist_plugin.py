"""The `twist` and `twistd` plugin.

`twist batcher --config config.yaml`, on whatever reactor those were told to use.

SIGHUP has the settings read and applied anew, as under `serve.py`.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from batcher.app.reloading import reason_of, reload_on_hangup
from batcher.app.service import BatcherService, State
from batcher.config.settings import load_settings
from batcher.errors import ConfigError

_log = Logger()


class Options(usage.Options):
    """Options of `twist batcher`."""

    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, "Configuration file; built-in defaults without."]
    ]


def makeService(options: Options) -> IService:
    """Return the service that `options` describe."""
    from twisted.internet import reactor

    path = Path(options["config"]) if options["config"] else None
    read = partial(load_settings, path, os.environ)
    try:
        settings = read()
    except ConfigError as err:
        raise SystemExit(f"batcher: {err}") from None  # twist shows other errors with their stacks
    service = BatcherService(
        settings,
        path.parent if path else Path.cwd(),
        reactor,
        progress=lambda title, text: _log.info("model {title}: {text}", title=title, text=text),
    )

    reload_on_hangup(
        reactor, lambda: service.reload(read).addErrback(lambda _: None)
    )  # the log has the reasons

    def not_ready(failure: Failure) -> None:
        _log.error("not ready: {reason}", reason=reason_of(failure))
        if service.state is State.STARTING:
            running: Any = reactor
            running.callWhenRunning(
                running.stop
            )  # a port that is taken is found out before the reactor runs

    service.ready.addCallbacks(
        lambda _: _log.info("ready on {address}", address=service.address), not_ready
    )
    return service
