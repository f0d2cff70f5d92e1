"""Plain names of a model's modules for whatever looks modules up at run time.

    importlib.import_module("features")    __import__("features")    exec("import features")
    pickle.loads(data), torch.load(file)   a pickle names the module of each class

All of these look into `sys.modules`, which the whole process shares: `features` of one model would
be found by the next. So an entry is made whose name equals the plain name for code of one package
alone. For all other code the entry is not there.

    who looks                                      finds `features`
    a file of model a, or what such a file calls   a's module
    a file of model b, or what such a file calls   b's module
    the thread that loads model a                  a's module
    a thread that code of model a has started      a's module
    a child process, which has one model           its module
    anybody else                                   whatever the process knows by that name

Who looks is seen on the stack of calls, so nothing is paid in `predict`. A thread knows who has
started it (`workers/own_threads.py`). A library's own `import` statement means an installed module
first, whichever model calls the library.

A model's code may put modules into `sys.modules` itself, mostly for pickles that name a module of
another place: `sys.modules["old_features"] = features`. At the end of the load such a name becomes
one of the model alone, for the libraries that the model calls too. What stood there before is put
back.

Refused: modules that stand under their plain names during a call (models run at the same time), and
other functions in place of `import_module` and `pickle.loads` (pickles of C code call neither).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dis import opmap
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from batcher.models.version_code import own_path
from batcher.models.version_code.homes import home_of, is_installed
from batcher.models.version_code.names import folder_of, package_of
from batcher.models.version_code.own_path import is_of_folder
from batcher.models.version_code.sources import owner_of

_package: ContextVar[str] = ContextVar("package", default="")
"""The package of the model that this thread loads."""

_starter: ContextVar[str] = ContextVar("starter", default="")
"""The package of the model that has started this thread."""

_names: dict[tuple[str, str], _PlainName] = {}
"""The names that stand in `sys.modules`, by package and plain name."""

_before: ContextVar[dict[str, Any]] = ContextVar("before")
"""What stood in `sys.modules` when this thread began to load."""

_only: list[str] = []
"""The package of the one model of this process, if there is one."""

_IMPORT = opmap["IMPORT_NAME"]


def use_plain_names(package: str) -> None:
    """Have plain names mean the modules of `package` on this thread. The thread that loads."""
    if _package.get() != package:
        forget_plain_names()
        _package.set(package)
        _before.set(_standing())
    if not any(isinstance(finder, _PlainFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PlainFinder())


def forget_plain_names() -> None:
    """Have plain names mean on this thread what they did before. The thread that loads."""
    package = _package.get()
    own_path.end(package)
    _package.set("")
    if package:
        _keep_apart(package, _before.get())
        _before.set({})


def keep_plain_names() -> None:
    """Have plain names go on to mean what they do on this thread, on all threads of the process.

    For a process of one model. The thread that has loaded.
    """
    _only[:] = [_package.get()]


def calling_package() -> str:
    """Return the package of the model whose code calls; empty for code of no model. Any thread."""
    return _asker().package


def belong_to(package: str) -> None:
    """Have plain names mean on this thread those of `package`, whoever calls. Any thread."""
    _starter.set(package)


def remove_plain_names(package: str) -> None:
    """Remove the plain names of a package, which nobody uses any more. Any thread."""
    for key in [key for key in list(_names) if key[0] == package]:
        sys.modules.pop(_names.pop(key), None)


def _keep_apart(package: str, before: dict[str, Any]) -> None:
    """Make names that the code of `package` has put into `sys.modules` names for it alone.

    `before` is what stood there before. The thread that has loaded.
    """
    for name, module in _standing().items():
        # first what most are: modules that stood there before
        if before.get(name) is module or package_of(name):
            continue
        if _is_put_by(package, name, module):
            del sys.modules[name]
            own = _name(package, name, f"{package}.{name}")
            own.is_put = True
            sys.modules[own] = module
            sys.modules.setdefault(str(own), module)
            if name in before:
                # Behind the model's own name, which a look-up compares first.
                sys.modules[name] = before[name]


def _standing() -> dict[str, Any]:
    """Return what stands in `sys.modules` by plain texts. Any thread."""
    # Any step may collect a model that is gone, whose names go too: the loop is over a copy, which
    # is made at once and compares no names.
    return {name: module for name, module in dict(sys.modules).items() if type(name) is str}


def _is_put_by(package: str, name: str, module: Any) -> bool:
    """Return whether the code of `package`, and no import, has put `module` there. Any thread."""
    if not isinstance(module, ModuleType):
        return False
    facts = ModuleType.__getattribute__(module, "__dict__")  # a lazy module stays as it is
    file = facts.get("__file__")
    if file is None and type(module) is ModuleType and facts.get("__spec__") is None:
        return "." not in name
    if owner := package_of(str(facts.get("__name__"))):
        return owner_of(owner) == package
    return is_of_folder(str(file), folder_of(package))


class _PlainName(str):
    """A name that equals a plain name for code of one package, and for no other code.

    Its text is the full name of the module, so that a list of all names shows nothing else.

    Attributes:
        package: the package.
        plain: the plain name.
        is_put: whether the code of the package has put the name into `sys.modules`.
    """

    package: str
    plain: str
    is_put = False

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is the plain name, looked up by the package. Any thread."""
        if self is other:
            return True
        if type(other) is not str or other != self.plain:
            return False
        asker = _asker()
        if asker.package != self.package:
            return False
        return self.is_put or not (asker.is_library_import or asker.imports_own_name(other))

    def __ne__(self, other: object) -> bool:
        """Return the opposite of `==`. Any thread."""
        return not self == other

    def __hash__(self) -> int:
        """Return the hash of the plain name, so that a look-up comes by. Any thread."""
        return hash(self.plain)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Have copies and pickles of the name be its text, which every process knows. Any thread.

        A library may send a list of all names to a process without this package.
        """
        return str, (str(self),)


class _Asker(NamedTuple):
    """The code that looks a module up.

    Attributes:
        package: the package of the model whose code it is, empty for code of no model.
        importing: the name of the module that runs a statement `import`; empty where the module is
            looked up by a call.
    """

    package: str
    importing: str

    @property
    def is_library_import(self) -> bool:
        """Whether a module of no model runs a statement `import`. Any thread."""
        return bool(self.importing) and not package_of(self.importing)

    def imports_own_name(self, name: str) -> bool:
        """Return whether a file imports its own `name`, and so means the library. Any thread."""
        return self.importing == f"{self.package}.{name}"


def _asker() -> _Asker:
    """Return who looks a module up at this moment. Any thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_machinery(frame):
        frame = frame.f_back
    importing = ""
    if frame is not None and frame.f_code.co_code[frame.f_lasti] == _IMPORT:
        importing = str(frame.f_globals.get("__name__"))
    while frame is not None:
        if package := package_of(str(frame.f_globals.get("__name__"))):
            return _Asker(package, importing)
        frame = frame.f_back
    return _Asker(_package.get() or _starter.get() or "".join(_only), importing)


def _is_machinery(frame: FrameType) -> bool:
    """Return whether `frame` is one of Python's importing, or of this file. Any thread."""
    name = frame.f_code.co_filename
    return name.startswith("<frozen importlib") or frame.f_globals is globals()


class _PlainFinder(MetaPathFinder):
    """Finds modules of the model whose code asks for them by their plain names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for `fullname` if the model has such a module. Any thread."""
        first = fullname.partition(".")[0]
        known = sys.modules.get(first)
        if known is not None and not package_of(str(getattr(known, "__name__", ""))):
            return None
        asker = _asker()
        home = home_of(asker.package, first) if asker.package else ""
        if not home or (known is None and asker.imports_own_name(first)):
            return None
        if asker.is_library_import and is_installed(asker.package, first):
            return None
        name = _name(asker.package, fullname, f"{home}.{fullname}")
        # Python puts the module into `sys.modules` by the name of the spec, not by `fullname`.
        return ModuleSpec(name, _SameModule(str(name)))


def _name(package: str, plain: str, text: str) -> _PlainName:
    """Return the one name that equals `plain` for the code of `package`. Any thread."""
    name = _PlainName(text)
    name.package, name.plain = package, plain
    return _names.setdefault((package, plain), name)


class _SameModule(Loader):
    """Gives a plain name the module that has another name already."""

    def __init__(self, fullname: str) -> None:
        """Stand for the module `fullname`. Any thread."""
        self._fullname = fullname

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, imported now if need be. Any thread."""
        module = import_module(self._fullname)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module, which has run, with the spec that it had. Any thread."""
        module.__spec__ = self._spec
