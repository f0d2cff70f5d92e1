"""Format `export`: a `.pt2` archive made by `torch.export.save`.

Such an archive is a ZIP file, mostly of raw weights and JSON. Yet two steps of its reader can run
code that somebody hid in the archive: the reader unpickles some members, and it evaluates the sizes
in the graph as Python expressions. So the archive of a model that is not trusted is looked through
first, and whatever is not known to be harmless is refused:

    member of the archive           refused
    raw weights and constants       nothing: they are bytes
    their configuration (JSON)      weights that are pickled
    sample inputs                   pickles of more than tensors
    the program (JSON)              operators that are not PyTorch's; every string that is neither
                                    a name nor the arithmetic of sizes
    any other                       the member
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch.export.passes import move_to_device_pass

from batcher.errors import ModelLoadError
from batcher.models.pytorch.module import TorchModule

# PyTorch imports this module only when the first archive is read, and takes a second for it. A
# process that waits for its first model imports it in that time.
with suppress(ImportError):
    import_module("torch._export.serde.serialize")

_RAW_MEMBER = re.compile(
    r"data/(weights/weight_\d+|constants/tensor_\d+)|byteorder|archive_\w+|version|\.data/\w+"
)
_CONFIG_MEMBER = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PROGRAM_MEMBER = re.compile(r"models/\w+\.json")
_SAMPLE_MEMBER = re.compile(r"data/sample_inputs/\w+\.pt")

_SIZE_WORDS = (
    "Symbol Integer Rational Float Add Mul Pow Max Min Mod FloorDiv CleanDiv CeilDiv PythonMod "
    "ModularIndexing Eq Ne Lt Le Gt Ge And Or Not Where true false True False integer positive "
    "nonnegative real oo int_oo IntTrueDiv FloatTrueDiv PowByNatural ToFloat TruncToInt RoundToInt "
    "CeilToInt FloorToInt Identity"
)
_SIZE = (
    # a word of the list, or a symbol such as `s0`
    rf"\b({_SIZE_WORDS.replace(' ', '|')}|[suz]\d{{1,18}})\b"
    # a symbol in quotes; a number, too short to take long
    r"|'[a-z]+\d+'|\b\d{1,18}(\.\d{1,18})?\b"
    # signs; `**` is none of them, since a power of large numbers fills the memory
    r"|[-+/%(),=<>!&|~\s]|\*(?!\*)"
)
"""One token of the arithmetic of sizes."""

_NAME = re.compile(r"[\w.:+-]*")
_TEXTS = {
    "expr_str": re.compile(rf"({_SIZE})*"),
    "as_expr": re.compile(rf"({_SIZE})*"),
    "guards_code": re.compile(rf"({_SIZE}|L\['[\w.]+'\](\.size\(\)\[\d+\])?)*"),
    # JSON within JSON: the names of a dict's values.
    "in_spec": re.compile(r'[][{}",:\s\w.\\]*'),
    "out_spec": re.compile(r'[][{}",:\s\w.\\]*'),
}
"""What a string in the program may look like, by its key. PyTorch evaluates these strings, or takes
them for the name of a type. A string of any other key is a name.
"""

_UNREAD_KEYS = frozenset({"stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"})
"""Keys of strings that are kept for people alone."""

_CONTAINER_TYPES = (
    None,
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
)
"""Types of containers that inputs and outputs may stand in; None is a leaf of the layout."""

_CONTAINER_KEYS = frozenset({"type", "context", "children_spec"})
_CONTAINER_CONTEXT = re.compile(r'null|\[[\w", ]*\]')
_OPERATORS = re.compile(r"torch\.ops(\.\w+)+|_operator\.\w+|math\.\w+|torch\.sym_\w+")


class ExportModel(TorchModule):
    """An exported program; `check_archive` guards the reading."""

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive and move its program to `device`. Inference thread."""
        module: Callable[..., Any] = self.source(device).module()
        return module

    def source(self, device: torch.device) -> torch.export.ExportedProgram:
        """Return the program, moved to `device`.

        Raises:
            ModelLoadError: the model is not trusted, and its archive could run code.

        Any thread.
        """
        if not self._settings.trusted:
            check_archive(self._definition.file)
        program = torch.export.load(str(self._definition.file))
        return program if device.type == "cpu" else move_to_device_pass(program, device)


def check_archive(path: Path) -> None:
    """Check that reading the archive at `path` can run no code but the model's own operators.

    Raises:
        ModelLoadError: the archive holds a pickle, or something that is not known to be harmless;
            the message names the member.

    Any thread.
    """
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            # Of two members of one name this check might read the first and PyTorch the second.
            if len(set(names)) < len(names):
                raise _refused(path.name, "two members of one name")
            for name in names:
                _check_member(name.partition("/")[2], archive, name)
    except BadZipFile as err:
        raise ModelLoadError(
            f"expected a .pt2 archive; got {path.name}, which is none: {err}"
        ) from err


def _check_member(member: str, archive: ZipFile, name: str) -> None:
    """Check one member, called `name` in full, and `member` below the archive's own folder.

    Any thread.
    """
    if _PROGRAM_MEMBER.fullmatch(member):
        _check_program(json.loads(archive.read(name)), "", member)
    elif _CONFIG_MEMBER.fullmatch(member):
        payloads = json.loads(archive.read(name)).get("config", {}).values()
        if any(payload.get("use_pickle") for payload in payloads):
            raise _refused(member, "pickled weights")
    elif _SAMPLE_MEMBER.fullmatch(member):
        # With `weights_only` the unpickler makes tensors and plain values, and nothing else.
        try:
            torch.load(BytesIO(archive.read(name)), weights_only=True)
        # The unpickler refuses with errors of many kinds.
        except Exception as err:
            raise _refused(member, "a pickle of more than tensors") from err
    elif not _RAW_MEMBER.fullmatch(member):
        raise _refused(member, "a member that may be a pickle")


def _check_program(value: Any, key: str, member: str) -> None:
    """Walk through the program: every string is a name, unless its `key` says what else it is.

    Any thread.
    """
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            # Ranges of sizes stand under expressions.
            if not (_NAME.fullmatch(inner_key) or _TEXTS["expr_str"].fullmatch(inner_key)):
                raise _refused(member, f"the name {inner_key!r:.60}")
            if inner_key == "nodes":
                _check_operators(inner, member)
            if inner_key not in _UNREAD_KEYS:
                _check_program(inner, inner_key, member)
    elif isinstance(value, list):
        for inner in value:
            _check_program(inner, key, member)
    elif isinstance(value, str):
        if not _TEXTS.get(key, _NAME).fullmatch(value):
            raise _refused(member, f"{key} {value!r:.60}")
        if key in ("in_spec", "out_spec"):
            _check_tree(json.loads(value), member)


def _check_operators(nodes: Any, member: str) -> None:
    """Check that every node of the graph calls an operator of PyTorch or of plain arithmetic.

    Any thread.
    """
    for node in nodes if isinstance(nodes, list) else []:
        target = node.get("target", "")
        if not _OPERATORS.fullmatch(target):
            raise _refused(member, f"the operator {target!r:.60}")


def _check_tree(value: Any, member: str) -> None:
    """Check the layout of inputs or outputs: plain containers, whose types are found by name.

    Any thread.
    """
    if isinstance(value, list):
        for inner in value:
            _check_tree(inner, member)
    elif isinstance(value, dict):
        if not set(value) <= _CONTAINER_KEYS or value.get("type") not in _CONTAINER_TYPES:
            raise _refused(member, f"the container {value.get('type')!r:.60}")
        _check_tree(value.get("children_spec", []), member)
        context = value.get("context")
        if context is not None and not _CONTAINER_CONTEXT.fullmatch(str(context)):
            raise _refused(member, f"the container {context!r:.60}")


def _refused(member: str, what: str) -> ModelLoadError:
    """Return the error for `what` in `member`, which an archive must not hold. Any thread."""
    return ModelLoadError(
        f"{member}: {what}, which can run any code when it is read. Export the model anew with "
        "this PyTorch, or set `trusted: true` for it if you made the file yourself"
    )


MODEL = ExportModel
