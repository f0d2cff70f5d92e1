"""`batcher doctor`: what is there on this machine, and what that means for the server.

Each finding is a fact in one line, and where the fact costs something, the cost and the mend. There
are three levels: `ok`, `note` (works, but slower or less), and `problem` (the server would not
start, or not serve what the configuration names).
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from batcher.batching import scheduler
from batcher.codecs.formats.json_text import to_json
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.core.cores import cores, memory_limit
from batcher.core.installing import EXTRAS, how_to_install
from batcher.errors import ConfigError
from batcher.frontends.listening.sockets import bound_sockets, close_listeners
from batcher.serving.repository.folders import find_models
from batcher.serving.repository.listing import ModelFolder
from batcher.serving.repository.stores.address import is_store

FEW_FILES = 4096
"""Open files below which many clients at once are refused: each connection is one."""

SHARED_BYTES = 64 << 20
"""Bytes of /dev/shm below which PyTorch's own worker processes often fail; Docker's default."""


class Finding(NamedTuple):
    """One fact.

    Attributes:
        subject: what was looked at.
        level: `ok`, `note` or `problem`.
        found: the fact, in words.
        meaning: what follows from the fact, and what to do; empty if nothing does.
    """

    subject: str
    level: str
    found: str
    meaning: str = ""


def examine(settings: ServerSettings, base: Path | None = None) -> list[Finding]:
    """Return what is there, for a server with `settings`, whose paths start from `base`."""
    return [
        _python(),
        *_torch(),
        _compiler(),
        _compiled(),
        *_extras(settings, base or Path.cwd()),
        _cores(),
        _memory(),
        _files(settings),
        _shared_memory(),
        *_ports(settings),
    ]


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}")


def _torch() -> Iterator[Finding]:
    try:
        torch = import_module("torch")
    # A torch for another CUDA, or one whose libraries are missing, raises whatever it likes.
    except Exception as err:
        meaning = "models of PyTorch cannot be served: install torch again"
        yield Finding("torch", "problem", f"cannot be imported: {err}", meaning)
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("cuda", "ok", ", ".join(names))
    elif shutil.which("nvidia-smi"):
        meaning = "models run on the CPU: this torch is built without CUDA, or the driver is older"
        yield Finding("cuda", "note", "a driver is there, but PyTorch sees no device", meaning)
    else:
        yield Finding("cuda", "ok", "none: models run on the CPU")


def _found_compiler() -> str | None:
    return shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")


def _compiler() -> Finding:
    if found := _found_compiler():
        return Finding("compiler", "ok", found)
    meaning = "`compile: aoti` serves models as they are: install g++ (`apt-get install g++`)"
    return Finding("compiler", "note", "none", meaning)


def _compiled() -> Finding:
    if scheduler.__file__.endswith(".py"):
        missing = [] if _found_compiler() else ["a C compiler"]
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            missing.append("Python's headers (`apt-get install python3-dev`)")
        needs = f" with {' and '.join(missing)}" if missing else ", which compiles it"
        meaning = f"each request costs more: install the package again{needs}"
        return Finding("hot path", "note", "not compiled", meaning)
    return Finding("hot path", "ok", "compiled")


def _extras(settings: ServerSettings, base: Path) -> Iterator[Finding]:
    for name, module in EXTRAS.items():
        if find_spec(module) is not None:
            yield Finding(f"extra {name}", "ok", "installed")
            continue
        needs = _need_of(name, settings, base)
        level, why = ("problem", f"needed by {needs}") if needs else ("note", "if needed")
        yield Finding(f"extra {name}", level, "not installed", f"{why}: {how_to_install(name)}")


def _need_of(extra: str, settings: ServerSettings, base: Path) -> str:
    """Return what of the configuration needs `extra`; empty if nothing does."""
    fronts = {"grpc": ("grpc_port", settings.grpc_port), "zeromq": ("zeromq", settings.zeromq)}
    if extra in fronts:
        name, value = fronts[extra]
        return name if value is not None else ""
    if extra in ("parquet", "gpu"):
        return ""  # a batch job names its files, no setting does; metrics of GPUs are for who looks
    asked = {"redis": ("cache.store", _asks_redis), "ray": ("worker", _is_on_ray)}
    if extra in asked:
        key, asks = asked[extra]
        kept = [("defaults", settings.defaults), *settings.models.items()]
        return next((f"{key} of {name}" for name, each in kept if asks(each)), "")
    if extra == "stores":
        places = [("model_repository", place) for place in settings.repositories]
        own = settings.models.items()
        places += [(f"models.{name}.path", each.path) for name, each in own if each.path]
        return next((key for key, place in places if _is_bucket(place)), "")
    try:
        folders = find_models(settings, base).folders
    except ConfigError:  # the server says so itself when it starts
        return ""
    return next((f"model {each.name}" for each in folders if _is_onnx(each)), "")


def _asks_redis(settings: ModelSettings) -> bool:
    return settings.cache is not None and settings.cache.redis is not None


def _is_on_ray(settings: ModelSettings) -> bool:
    return settings.worker == "ray"


def _is_bucket(place: str) -> bool:
    return is_store(place) and not place.startswith("https:")


def _is_onnx(found: ModelFolder) -> bool:
    if found.single is not None:
        return found.single.file.suffix == ".onnx"
    return any(found.folder.glob("*.onnx"))


def _cores() -> Finding:
    mine, machine = cores(), os.cpu_count() or 1
    if mine < machine:
        return Finding("cores", "ok", f"{mine} of {machine}, by affinity or a control group")
    return Finding("cores", "ok", str(mine))


def _memory() -> Finding:
    limit, machine = memory_limit(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if limit is None or limit >= machine:
        return Finding("memory", "ok", f"{_gib(machine)} of the machine, no limit")
    meaning = "what goes beyond is killed by the kernel: docs/memory.md counts what clients hold"
    return Finding("memory", "note", f"limit of {_gib(limit)} by a control group", meaning)


def _files(settings: ServerSettings) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard in (resource.RLIM_INFINITY, -1) or hard >= min(settings.max_connections, FEW_FILES):
        text = "no limit" if hard in (resource.RLIM_INFINITY, -1) else f"{hard} at most"
        return Finding("open files", "ok", text)
    meaning = (
        f"more clients at once than that are refused: raise the hard limit (`ulimit -Hn`), "
        f"max_connections is {settings.max_connections}"
    )
    return Finding("open files", "note", f"{hard} at most", meaning)


def _shared_memory() -> Finding:
    with suppress(OSError):
        room = shutil.disk_usage("/dev/shm").total
        if room > SHARED_BYTES:
            return Finding("shared memory", "ok", f"{_gib(room)} in /dev/shm")
        meaning = (
            "the server needs none, but processes of PyTorch's data loaders do: `--shm-size` of a "
            "container raises it"
        )
        return Finding("shared memory", "note", f"{_gib(room)} in /dev/shm", meaning)
    return Finding("shared memory", "note", "no /dev/shm", "processes of PyTorch may need one")


def _ports(settings: ServerSettings) -> Iterator[Finding]:
    if settings.unix_socket is not None:
        yield Finding("socket", "ok", f"{settings.unix_socket} (unix_socket)")
    for name in ("port", "grpc_port", "agent_check_port"):
        port = getattr(settings, name)
        if not port or (name == "port" and settings.unix_socket is not None):
            continue
        where = f"{settings.host}:{port}"
        try:
            close_listeners(bound_sockets(settings.host, port, reuse_port=False))
        except OSError as err:
            meaning = "set host to a name or an address of this machine"
            if err.errno == errno.EADDRINUSE:
                meaning = f"another program listens there: stop it, or set another {name}"
            elif err.errno == errno.EACCES:
                meaning = f"set a {name} from 1024 on, or run the server with more rights"
            yield Finding(name, "problem", f"{where}: {err.strerror or err}", meaning)
        else:
            yield Finding(name, "ok", f"{where} is free")


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def report_text(findings: list[Finding]) -> str:
    """Return the findings for people: one a line, with its meaning below."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for subject, level, found, meaning in findings:
        lines.append(f"{level:<7}  {subject:<{width}}  {found}")
        if meaning:
            lines.append(f"{'':<7}  {'':<{width}}  {meaning}")
    return "\n".join(lines)


def report_json(findings: list[Finding]) -> str:
    """Return the findings for programs, as one JSON object."""
    listed = [finding._asdict() for finding in findings]
    return to_json({"ok": not has_problem(findings), "findings": listed}).decode()


def has_problem(findings: list[Finding]) -> bool:
    """Return whether the server would not start, or not serve what is asked of it."""
    return any(finding.level == "problem" for finding in findings)
