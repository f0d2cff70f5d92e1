"""Looks through the archive of an exported program for code, before PyTorch reads it.

Such an archive is a ZIP file, mostly of raw weights and JSON. Yet two steps of its reader can run
code that somebody hid in the archive: the reader unpickles some members, and it evaluates some
texts of the program as Python. So the archive of a model that is not trusted is looked through, and
whatever is not known to be harmless is refused:

    member of the archive           refused
    raw weights and constants       nothing: they are bytes
    their configuration (JSON)      weights that are pickled
    sample inputs                   pickles of more than tensors
    the program (JSON)              texts that are not what their key says, see below
    any other                       the member

    text of the program             must be
    size, guard                     arithmetic (`archive_texts.py`): PyTorch evaluates it
    layout of inputs, outputs       containers whose types are known (`archive_layouts.py`): PyTorch
                                    finds them by name
    operator                        registered, and told by no text to reach beyond tensors
                                    (`operators.py`)
    argument, message, metadata     anything: PyTorch hands it on as text
    name of a weight                without quotes: PyTorch writes it into code in quotes
    any other                       a name: PyTorch writes names into code
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch

from batcher.errors import ModelLoadError
from batcher.models.pytorch.archive_layouts import layout_harm
from batcher.models.pytorch.archive_texts import is_guard, is_key, is_size
from batcher.models.pytorch.operators import check_registered, harm

_RAW_MEMBER = re.compile(
    r"data/(weights/weight_\d+|constants/tensor_\d+)|byteorder|archive_\w+|version|\.data/\w+"
)
_CONFIG_MEMBER = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PROGRAM_MEMBER = re.compile(r"models/\w+\.json")
_SAMPLE_MEMBER = re.compile(r"data/sample_inputs/\w+\.pt")

_NAME = re.compile(r"[\w.:+-]*")

_PLAIN_TEXTS = frozenset(
    {"as_string", "as_strings", "stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"}
    | {"from_node", "custom", "torch_version"}
)
"""Keys of texts that PyTorch hands to an operator, or keeps for people."""

_OPERATOR_KEYS = frozenset({"target", "as_operator"})
_GRAMMARS: dict[str, Callable[[str], object]] = {
    "expr_str": is_size,
    "as_expr": is_size,
    "guards_code": is_guard,
    "parameter_name": is_key,
    "buffer_name": is_key,
    "tensor_constant_name": is_key,
    "fqn": is_key,
}
"""What a text must be, by its key; every other text is a name."""

_LAYOUT_KEYS = frozenset({"in_spec", "out_spec"})


class _Member(NamedTuple):
    """A member that is looked at.

    Attributes:
        name: its name below the archive's own folder.
        imports: modules whose types may hold inputs and outputs.
    """

    name: str
    imports: tuple[str, ...]


def check_archive(path: Path, imports: tuple[str, ...] = ()) -> None:
    """Check that reading the archive at `path` can run no code but the model's own operators.

    The modules in `imports` are imported by now, and their types may hold inputs and outputs.

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
                raise _refused(_Member(path.name, imports), "two members of one name")
            for name in names:
                _check_member(_Member(name.partition("/")[2], imports), archive, name)
    except BadZipFile as err:
        raise ModelLoadError(
            f"expected a .pt2 archive; got {path.name}, which is none: {err}"
        ) from err


def check_operators(path: Path) -> None:
    """Check that every operator of the program in the archive at `path` is registered.

    Raises:
        ModelLoadError: an operator is not; the message says what to do.

    Any thread.
    """
    with ZipFile(path) as archive:
        for name in archive.namelist():
            if _PROGRAM_MEMBER.fullmatch(name.partition("/")[2]):
                for target in re.findall(r'"target": "([\w.]+)"', archive.read(name).decode()):
                    check_registered(target)


def _check_member(member: _Member, archive: ZipFile, name: str) -> None:
    """Check one member, called `name` in full. Any thread."""
    if _PROGRAM_MEMBER.fullmatch(member.name):
        _check_program(json.loads(archive.read(name)), "", member)
    elif _CONFIG_MEMBER.fullmatch(member.name):
        payloads = json.loads(archive.read(name)).get("config", {}).values()
        if any(payload.get("use_pickle") for payload in payloads):
            raise _refused(member, "pickled weights")
    elif _SAMPLE_MEMBER.fullmatch(member.name):
        # With `weights_only` the unpickler makes tensors and plain values, and nothing else.
        try:
            # Not `torch.load`: a model's code may have put one there that unpickles anything.
            torch.serialization.load(BytesIO(archive.read(name)), weights_only=True)
        # The unpickler refuses with errors of many kinds.
        except Exception as err:
            raise _refused(member, "a pickle of more than tensors") from err
    elif not _RAW_MEMBER.fullmatch(member.name):
        raise _refused(member, "a member that may be a pickle")


def _check_program(value: Any, key: str, member: _Member) -> None:
    """Walk through the program: every text must be what its `key` says. Any thread."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            # Ranges of sizes stand under expressions.
            if not (_NAME.fullmatch(inner_key) or is_size(inner_key)):
                raise _refused(member, f"the name {inner_key!r:.60}")
            if inner_key not in _PLAIN_TEXTS:
                _check_program(inner, inner_key, member)
    elif isinstance(value, list):
        for inner in value:
            _check_program(inner, key, member)
    elif isinstance(value, str):
        _check_text(value, key, member)


def _check_text(text: str, key: str, member: _Member) -> None:
    """Check one text of the program. Any thread."""
    if key in _OPERATOR_KEYS:
        check_registered(text)
        if what := harm(text):
            raise _refused(member, what)
    elif key in _LAYOUT_KEYS:
        if what := layout_harm(text, member.imports, of_inputs=key == "in_spec"):
            raise _refused(member, what)
    elif not _GRAMMARS.get(key, _NAME.fullmatch)(text):
        raise _refused(member, f"{key} {text!r:.80}")


def _refused(member: _Member, what: str) -> ModelLoadError:
    """Return the error for `what` in `member`, which an archive must not hold. Any thread."""
    return ModelLoadError(
        f"{member.name}: {what}, which can run any code when it is read. Export the model anew "
        "with this PyTorch, or set `trusted: true` for it if you made the file yourself"
    )
