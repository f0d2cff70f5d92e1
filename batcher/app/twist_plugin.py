"""The `twist` and `twistd` plugin: `twist batcher --config config.yaml`.

The server runs on the reactor that `twist` was told to use. SIGHUP reloads the settings, as under
`serve.py`.
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
    # Here, since `twist` chooses the reactor after it has found its plugins.
    from twisted.internet import reactor

    # Absolute, since a model may change the working directory.
    path = Path(options["config"]).absolute() if options["config"] else None
    read = partial(load_settings, path, os.environ)
    try:
        settings = read()
    except ConfigError as err:
        # `twist` shows any other error with its traceback.
        raise SystemExit(f"batcher: {err}") from None
    base = path.parent if path else Path.cwd()
    service = BatcherService(settings, base, reactor, progress=_log_progress)
    # A reload that fails has its reasons in the log.
    reload_on_hangup(reactor, lambda: service.reload(read).addErrback(lambda _: None))
    service.ready.addCallbacks(
        lambda _: _log.info("ready on {address}", address=service.address),
        partial(_not_ready, service, reactor),
    )
    return service


def _log_progress(title: str, text: str) -> None:
    _log.info("model {title}: {text}", title=title, text=text)


def _not_ready(service: BatcherService, reactor: Any, failure: Failure) -> None:
    _log.error("not ready: {reason}", reason=reason_of(failure))
    if service.state is State.STARTING:
        # A port that is taken is found out before the reactor runs.
        reactor.callWhenRunning(reactor.stop)
