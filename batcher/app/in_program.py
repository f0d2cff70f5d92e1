"""`batcher.serve(Model)`: a server for one class, function or file, from a script or a notebook.

The server runs on a thread of this program, with an event loop of its own, and the model on another
one. So a notebook, whose main thread has a running event loop already, is never held up:

    where `serve` is called               `serve` returns
    a script, or Python's prompt          when Ctrl-C or SIGTERM has ended the server, which drains
    a notebook: a loop runs already       at once, when the model is ready; `stop` ends the server
    anywhere, with `wait=`                as `wait` says

A program can have one reactor, and a reactor cannot run twice. So the thread of the first server
stays, and a later `serve` of the program uses it again. The server before is stopped first, so a
cell of a notebook can be run again as it is.

A class of the program is served as it is in memory: nothing is read from a file. Files are served
too, as `batcher serve FILE` does.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from batcher.app.first_words import first_words
from batcher.app.target import Flags, Said, target_flags
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings, load_settings, share_threads
from batcher.config.single_file import SingleFile
from batcher.errors import ConfigError
from batcher.models.declaring import declaration_of
from batcher.models.declaring import model as declare
from batcher.models.describing.annotated import parameters_of
from batcher.models.describing.probe import definition_from, probe
from batcher.models.describing.python_file import describe_class, is_module, kind_in_words

if TYPE_CHECKING:
    from batcher.app.server_thread import ServerThread
    from batcher.app.service import BatcherService
    from batcher.serving.model_version import ModelVersion

_FILE_OF_MODELS = "batcher.models.version_code."
"""What the names of modules begin with that the server imports from a model's file."""

_current: Serving | None = None


class Serving:
    """A server that runs in this program.

    Attributes:
        address: where clients connect, such as `http://127.0.0.1:8080`.
    """

    def __init__(self, thread: ServerThread, service: BatcherService) -> None:
        """Hold what was started."""
        self.address = service.address
        self._thread = thread
        self._service: BatcherService | None = service
        self._ended: SimpleQueue[None] = SimpleQueue()
        atexit.register(self.stop)

    @property
    def versions(self) -> list[ModelVersion]:
        """The models that are served."""
        return list(self._service.server) if self._service is not None else []

    def add(self, made: Made, settings: ModelSettings) -> None:
        """Serve what was `made` as well; where it cannot be loaded, stop and raise why."""
        assert self._service is not None
        try:
            self._thread.add(self._service, *made, settings)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Answer what was accepted, and end the server; does nothing if it has ended.

        Nor in a copy of the process that was forked: there no server runs.
        """
        atexit.unregister(self.stop)
        service, self._service = self._service, None
        if service is not None and self._thread.is_alive:
            try:
                self._thread.call(service.stopService)
            finally:
                self._ended.put(None)

    def wait(self) -> None:
        """Return when Ctrl-C or SIGTERM has ended the server, or `stop`. Main thread."""
        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # only the main thread hears signals
                before[number] = signal.signal(number, lambda *_: self._ended.put(None))
        try:
            if self._service is not None:
                self._ended.get()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.stop()

    def __repr__(self) -> str:
        """Return where the server is, for the last line of a cell."""
        return f"<batcher on {self.address}>" if self._service is not None else "<batcher, stopped>"


def serve(
    model: Any,
    *,
    name: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    sample: Any = None,
    wait: bool | None = None,
    **settings: Any,
) -> Serving | None:
    """Serve `model`: a class, a function, a module or object that is made already, or a path.

    `inputs`, `outputs` and `sample` are those of `batcher.model`. Other arguments are settings:
    `port=8081`, `max_batch_size=16`. With `wait` it returns None when the server has ended, else
    the server at once; the default is to wait unless an event loop runs here, as in a notebook.
    Raises ConfigError, ModelLoadError, OSError: settings, model or port cannot be used.
    """
    if not _is_program(sys._getframe(1).f_globals.get("__name__", "")):
        return None
    wait = not _has_running_loop() if wait is None else wait
    serving = _started(model, Asked(name, inputs, outputs, sample), settings, wait)
    if not wait:
        return serving
    serving.wait()
    return None


class Asked(NamedTuple):
    """What the caller of `serve` says of the model, as `batcher.model` takes it."""

    name: str | None
    inputs: Mapping[str, Any] | None
    outputs: Mapping[str, Any] | None
    sample: Any


class Made(NamedTuple):
    """A model that an object of this program makes.

    Attributes:
        definition: what the model is.
        maker: the class or function that makes it.
        sample: rows by name that it can answer; None without any.
    """

    definition: ModelDefinition
    maker: Any
    sample: Mapping[str, Any] | None


def _is_program(caller: str) -> bool:
    """Return whether the module `caller` is a program that may serve. Raises ConfigError."""
    if caller.startswith(_FILE_OF_MODELS):
        raise ConfigError(
            "batcher.serve: expected to be called by the program; got called while the file is "
            'imported as a model: write it below `if __name__ == "__main__":`'
        )
    # Each child of multiprocessing imports the script again under this name.
    return caller != "__mp_main__"


def _tell(serving: Serving, how: str) -> None:
    definitions = [version.definition for version in serving.versions]
    click.echo(f"{first_words(definitions, serving.address, f'{how} stops the server')}\n")


def _started(model: Any, asked: Asked, own: Mapping[str, Any], wait: bool) -> Serving:
    """Do what `_start` does; a ConfigError has none of the server's own lines above it."""
    try:
        return _start(model, asked, own, wait)
    except ConfigError as err:
        raise err.with_traceback(None) from err.__cause__


def _start(model: Any, asked: Asked, own: Mapping[str, Any], wait: bool) -> Serving:
    """Start a server for `model`, stop the one before, and tell how to ask the new one."""
    global _current
    # Here, since most programs that import batcher start no server.
    from batcher.app.server_thread import server_thread

    is_file = isinstance(model, str | Path)
    alone: Flags = {("model_repository",): ("batcher.serve", None)}
    settings = _settings(own, target_flags(str(model), _said(asked), True) if is_file else alone)
    made = None if is_file else _made(model, asked, settings.defaults)
    # What is wrong so far leaves the server before as it is.
    if _current is not None:
        _current.stop()
    thread = server_thread()
    service = thread.start(settings, Path.cwd())
    _current = Serving(thread, service)
    if made is not None:
        _current.add(made, share_threads(settings.defaults, settings.defaults.instances))
    _tell(_current, "Ctrl-C" if wait else "stop() of the result")
    return _current


def _settings(own: Mapping[str, Any], flags: Flags) -> ServerSettings:
    """Return the settings of the server; `own` are those that the caller names."""
    flags = dict(flags)
    servers, models = ServerSettings.model_fields, ModelSettings.model_fields
    for key, value in own.items():
        if key not in servers and key not in models:
            raise _unknown(key, [*Asked._fields, "wait", *models, *servers])
        is_server = key in ServerSettings.model_fields
        flags[(key,) if is_server else ("defaults", key)] = (f"batcher.serve({key}=…)", value)
    # A platform's port is for the program, which may have a server of its own on it.
    environment = {name: text for name, text in os.environ.items() if name != "PORT"}
    try:
        return load_settings(None, environment, flags)
    except ConfigError as err:
        # The caller knows nothing of a section `defaults`.
        raise ConfigError(str(err).replace("=…): defaults.", "=…): ")) from None


def _unknown(key: str, known: Sequence[str]) -> ConfigError:
    """Return the error of an argument that is none of those `known`."""
    close = get_close_matches(key, known, n=1, cutoff=0.5)
    advice = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return ConfigError(f"batcher.serve: unknown argument {key}; {advice}")


def _said(asked: Asked) -> Said:
    """Return what is said of a file."""
    inputs, outputs = (
        [f"{key}={text}" for key, text in (each or {}).items()]
        for each in (asked.inputs, asked.outputs)
    )
    sample = Path(asked.sample) if asked.sample is not None else None
    return Said(asked.name, inputs, outputs, sample)


def _made(model: Any, asked: Asked, settings: ModelSettings) -> Made:
    """Return what is to be loaded for an object of this program. Raises ConfigError."""
    model = _servable(model)
    is_made = not isinstance(model, type) and not inspect.isfunction(model)
    if settings.worker != "thread" or (is_made and settings.instances > 1):
        raise ConfigError(
            "batcher.serve: expected worker=thread, and one instance of a model that is made "
            "already; a class in a file of its own can have more: batcher.serve('model.py')"
        )
    kind = type(model) if is_made else model
    title = asked.name or kind.__name__.strip("<>")
    single = SingleFile(Path.cwd() / "program", "", asked.inputs, asked.outputs, asked.sample)
    found = describe_class(kind, title, single, in_program=True)
    found.values |= {"format": "python", "class": "program:Model"}
    what = "an object of class" if is_made else kind_in_words(kind)
    found.notes.insert(0, f"{what} {kind.__name__}")
    maker = (lambda: model) if is_made else model
    probe(found, title, Path.cwd(), settings.model_copy(update={"device": "cpu"}), maker)
    return Made(definition_from(found, title, "1", Path.cwd()), maker, found.example)


def _servable(model: Any) -> Any:
    """Return `model`; a function of inputs as one that says so. Raises ConfigError."""
    if isinstance(model, type) or is_module(type(model)) or hasattr(model, "predict"):
        return model
    if not callable(model):
        raise ConfigError(
            "batcher.serve: expected a class, a function, a torch.nn.Module, an object with "
            f"predict, or a path; got {type(model).__name__}"
        )
    function: Any = model
    if not inspect.isfunction(model):  # a method, or `functools.partial`
        function = lambda **inputs: model(**inputs)  # noqa: E731  # it has no name of its own
        function.__name__ = getattr(model, "__name__", type(model).__name__)
        function.__signature__ = inspect.signature(model)
    # A function without arguments makes the model.
    is_declared = declaration_of(function) is not None or not parameters_of(function)
    return function if is_declared else declare()(function)


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
