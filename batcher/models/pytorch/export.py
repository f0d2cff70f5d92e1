"""Format `export`: a `.pt2` archive made by `torch.export.save`.

Such an archive is mostly raw weights and JSON, but its reader falls back to unpickling some
members, and evaluates the size expressions in the graph as Python. So unless a model is trusted,
its archive is looked through first: pickled weights and constants, sample inputs that are more than
tensors, operators that are not torch's, and every string that is neither a name nor the arithmetic
of sizes are refused.
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

with suppress(
    ImportError
):  # PyTorch imports it late, in a second: a process that waits to load a model has it already
    import_module("torch._export.serde.serialize")

_RAW_MEMBER = re.compile(
    r"data/(weights/weight_\d+|constants/tensor_\d+)|byteorder|archive_\w+|version|\.data/\w+"
)
_CONFIG_MEMBER = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PROGRAM_MEMBER = re.compile(r"models/\w+\.json")
_SAMPLE_MEMBER = re.compile(r"data/sample_inputs/\w+\.pt")

_SIZES = (
    "Symbol Integer Rational Float Add Mul Pow Max Min Mod FloorDiv CleanDiv CeilDiv PythonMod "
    "ModularIndexing Eq Ne Lt Le "
    "Gt Ge And Or Not Where true false True False integer positive nonnegative real oo int_oo "
    "IntTrueDiv FloatTrueDiv "
    "PowByNatural ToFloat TruncToInt RoundToInt CeilToInt FloorToInt Identity"
)
_SIZE = rf"\b({_SIZES.replace(' ', '|')}|[suz]\d+)\b|'[a-z]+\d+'|\b\d{{1,18}}(\.\d{{1,18}})?\b|[-+/%(),=<>!&|~\s]|\*(?!\*)"
_NAME = re.compile(r"[\w.:+-]*")
_TEXT = {
    "expr_str": re.compile(rf"({_SIZE})*"),
    "as_expr": re.compile(rf"({_SIZE})*"),
    "guards_code": re.compile(rf"({_SIZE}|L\['[\w.]+'\](\.size\(\)\[\d+\])?)*"),
    "in_spec": re.compile(r'[][{}",:\s\w.\\]*'),  # JSON within JSON: the names of a dict's values
    "out_spec": re.compile(r'[][{}",:\s\w.\\]*'),
}
"""What a string in the program may look like where it is more than a name: torch evaluates it, or
resolves it to a type.
"""

_NOTES = frozenset({"stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"})
"""Strings that are kept for people alone."""

_TREE_TYPES = frozenset(
    {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
)
_OPERATORS = re.compile(r"torch\.ops(\.\w+)+|_operator\.\w+|math\.\w+|torch\.sym_\w+")


class ExportModel(TorchModule):
    """An exported program."""

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive and move its program to `device`. Inference thread."""
        module: Callable[..., Any] = self.source(device).module()
        return module

    def source(self, device: torch.device) -> torch.export.ExportedProgram:
        """Return the program. Any thread."""
        if not self._settings.trusted:
            check_archive(self._definition.file)
        program = torch.export.load(str(self._definition.file))
        return program if device.type == "cpu" else move_to_device_pass(program, device)


def check_archive(path: Path) -> None:
    """Check that reading the archive at `path` can run no code but the model's own operators.

    Raises:
        ModelLoadError: it holds a pickle, or something that is not known to be harmless; the
            message names the member.
    """
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise _refused(path.name, "two members of one name")
            for name in names:
                _check_member(name.partition("/")[2], archive, name)
    except BadZipFile as err:
        raise ModelLoadError(
            f"expected a .pt2 archive; got {path.name}, which is none: {err}"
        ) from err


def _check_member(member: str, archive: ZipFile, name: str) -> None:
    if _PROGRAM_MEMBER.fullmatch(member):
        _check_program(json.loads(archive.read(name)), "", member)
    elif _CONFIG_MEMBER.fullmatch(member):
        if any(
            payload.get("use_pickle")
            for payload in json.loads(archive.read(name)).get("config", {}).values()
        ):
            raise _refused(member, "pickled weights")
    elif _SAMPLE_MEMBER.fullmatch(member):
        try:
            torch.load(BytesIO(archive.read(name)), weights_only=True)
        except Exception as err:  # the unpickler refuses with errors of many kinds
            raise _refused(member, "a pickle of more than tensors") from err
    elif not _RAW_MEMBER.fullmatch(member):
        raise _refused(member, "a member that may be a pickle")


def _check_program(value: Any, key: str, member: str) -> None:
    """Walk through the program: every string is a name, unless its key says what else it may be."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            if not (
                _NAME.fullmatch(inner_key) or _TEXT["expr_str"].fullmatch(inner_key)
            ):  # ranges are given by expression
                raise _refused(member, f"the name {inner_key!r:.60}")
            if inner_key == "nodes":
                _check_operators(inner, member)
            if inner_key not in _NOTES:
                _check_program(inner, inner_key, member)
    elif isinstance(value, list):
        for inner in value:
            _check_program(inner, key, member)
    elif isinstance(value, str):
        if not _TEXT.get(key, _NAME).fullmatch(value):
            raise _refused(member, f"{key} {value!r:.60}")
        if key in ("in_spec", "out_spec"):
            _check_tree(json.loads(value), member)


def _check_operators(nodes: Any, member: str) -> None:
    for node in nodes if isinstance(nodes, list) else []:
        target = node.get("target", "")
        if not _OPERATORS.fullmatch(target):
            raise _refused(member, f"the operator {target!r:.60}")


def _check_tree(value: Any, member: str) -> None:
    """Check the layout of inputs or outputs: plain containers, whose types are resolved by name."""
    if isinstance(value, list):
        for inner in value:
            _check_tree(inner, member)
    elif isinstance(value, dict):
        if not set(value) <= {"type", "context", "children_spec"} or value.get("type") not in (
            None,
            *_TREE_TYPES,
        ):
            raise _refused(member, f"the container {value.get('type')!r:.60}")
        _check_tree(value.get("children_spec", []), member)
        context = value.get("context")
        if context is not None and not re.fullmatch(r'null|\[[\w", ]*\]', str(context)):
            raise _refused(member, f"the container {context!r:.60}")


def _refused(member: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"{member}: {what}, which can run any code when it is read. Export the model anew with "
        "this PyTorch, or set "
        "`trusted: true` for it if you made the file yourself",
    )


MODEL = ExportModel
