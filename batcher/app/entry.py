"""Where the program begins: `batcher`, and `serve.py`.

Some modules are compiled when the package is installed (`setup.py`), and each of them works with
the others as long as all are compiled, or none. A program that begins while `pip install -e .`
puts the compiled ones in their place gets some of both, and ends with an error that says nothing of
that. So such an error is told in words here.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

MIXED = (
    "batcher cannot start: expected modules that are all compiled, or none of them; got some of "
    "both, since the package is being installed, or an installation was broken off. Start again "
    "when it has ended, or install again"
)


def main() -> None:
    """Run the program `batcher`."""
    _run("main")


def serve() -> None:
    """Run `batcher serve`."""
    _run("serve")


def _run(command: str) -> None:
    try:
        getattr(import_module("batcher.app.cli"), command)()
    except (AttributeError, ImportError, TypeError):
        if is_mixed():
            sys.exit(MIXED)
        raise


def is_mixed() -> bool:
    """Return whether a module of the package has been compiled, or removed, since it was read."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    folder = Path(__file__).parents[1]
    own = [path for path in map(Path, filter(None, files)) if path.is_relative_to(folder)]
    return any(not path.exists() or _has_compiled(path) for path in own)


def _has_compiled(source: Path) -> bool:
    """Return whether a compiled module stands beside `source`, in whose place it would be read."""
    is_source = source.suffix == ".py" and source.name != "__init__.py"
    return is_source and any(source.with_suffix(end).exists() for end in EXTENSION_SUFFIXES)
