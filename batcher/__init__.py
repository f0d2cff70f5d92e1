"""An asynchronous batching inference server: the door, from which users import.

    ModelServer            holds models inside another Twisted program
    BatcherService         the whole server as a Twisted service
    ServerSettings         settings of a server, all of `config.yaml`
    ModelSettings          settings of one model
    Parameters             deadline, priority and key of a request
    load_model_definition  reads the `model.yaml` of a model
    model                  a decorator: what a class or function takes and gives
    serve                  serves a class, function or file from a script or a notebook
    errors                 every failure that a client or an operator can see

The rooms behind the door may move; these names stay. Each name is loaded at its first use, so a
program pays for what it uses: `import batcher` alone imports neither PyTorch nor Klein. The first
use of `BatcherService` imports Klein, which installs Twisted's default reactor unless the program
has installed another one before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Before anything imports Twisted, whose endpoints remove the variables that this module reads.
from batcher.core import systemd_sockets as systemd_sockets

if TYPE_CHECKING:
    from batcher import errors
    from batcher.app.in_program import serve
    from batcher.app.service import BatcherService
    from batcher.config.model_file import load_model_definition
    from batcher.config.model_settings import ModelSettings
    from batcher.config.settings import ServerSettings
    from batcher.core.request import Parameters
    from batcher.models.declaring import model
    from batcher.serving.server import ModelServer

__version__ = "0.1.0"

__all__ = [
    "BatcherService",
    "ModelServer",
    "ModelSettings",
    "Parameters",
    "ServerSettings",
    "__version__",
    "errors",
    "load_model_definition",
    "model",
    "serve",
]
_HOMES = {
    "BatcherService": "batcher.app.service",
    "ModelServer": "batcher.serving.server",
    "ModelSettings": "batcher.config.model_settings",
    "Parameters": "batcher.core.request",
    "ServerSettings": "batcher.config.settings",
    "load_model_definition": "batcher.config.model_file",
    "model": "batcher.models.declaring",
    "serve": "batcher.app.in_program",
}
"""The module of each name that is loaded at its first use."""


def __getattr__(name: str) -> Any:
    """Load `name` now and return it; Python calls this only for a name that is not loaded yet."""
    if name == "errors":
        return import_module("batcher.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        globals()[name] = value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as err:
        if not (err.name or "").startswith("batcher."):
            raise
        # the client's own distribution has this door too, and little behind it
        raise ModuleNotFoundError(
            f"{name}: expected `pip install batcher-inference`; got its client alone", name=err.name
        ) from err
    return value


def __dir__() -> list[str]:
    """Return the names that are loaded and those that can be."""
    return sorted(globals().keys() | set(__all__))
