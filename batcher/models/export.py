"""Format `export`: a `.pt2` archive made by `torch.export.save`.

Such an archive is mostly raw weights and JSON, but its reader falls back to unpickling some members, and evaluates the size
expressions in the graph as Python. So unless a model is trusted, its archive is looked through first: pickled weights and
constants, sample inputs that are more than tensors, and expressions beyond the arithmetic of sizes are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch.export.passes import move_to_device_pass

from batcher.errors import ModelLoadError
from batcher.models.torch_module import TorchModule

_RAW_MEMBER = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)|byteorder|archive_\w+|version|\.data/\w+")
_JSON_MEMBER = re.compile(r"models/\w+\.json|data/(weights|constants)/\w+_config\.json")
_SAMPLE_MEMBER = re.compile(r"data/sample_inputs/\w+\.pt")
_SIZES = (
    "Symbol Integer Rational Float Add Mul Pow Max Min Mod FloorDiv CleanDiv CeilDiv PythonMod ModularIndexing Eq Ne Lt Le "
    "Gt Ge And Or Not Where true false True False integer positive nonnegative real oo int_oo IntTrueDiv FloatTrueDiv "
    "PowByNatural ToFloat TruncToInt RoundToInt CeilToInt FloorToInt Identity"
)
_SIZE_EXPRESSION = re.compile(
    rf"(\b({_SIZES.replace(' ', '|')}|[suz]\d+)\b|'[a-z]+\d+'|\b\d+(\.\d+)?\b|[-+*/%(),=<>!&|~\s])*",
)


class ExportModel(TorchModule):
    """An exported program."""

    def read(self, device: torch.device) -> Callable[..., Any]:
        """Read the archive and move its program to `device`. Inference thread."""
        if not self._settings.trusted:
            check_archive(self._definition.file)
        program = torch.export.load(str(self._definition.file))
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        module: Callable[..., Any] = program.module()
        return module


def check_archive(path: Path) -> None:
    """Check that reading the archive at `path` can run no code but the model's own operators.

    Raises:
        ModelLoadError: it holds a pickle, or something that is not known to be harmless; the message names the member.
    """
    try:
        with ZipFile(path) as archive:
            for name in archive.namelist():
                _check_member(name.partition("/")[2], archive, name)
    except BadZipFile as err:
        raise ModelLoadError(f"expected a .pt2 archive; got {path.name}, which is none: {err}") from err


def _check_member(member: str, archive: ZipFile, name: str) -> None:
    if _JSON_MEMBER.fullmatch(member):
        for key, value in _items(json.loads(archive.read(name))):
            if key == "use_pickle" and value:
                raise _refused(member, "pickled weights")
            if key in ("expr_str", "as_expr") and isinstance(value, str) and not _SIZE_EXPRESSION.fullmatch(value):
                raise _refused(member, f"the expression {value!r:.60}")
    elif _SAMPLE_MEMBER.fullmatch(member):
        try:
            torch.load(BytesIO(archive.read(name)), weights_only=True)
        except Exception as err:  # the unpickler refuses with errors of many kinds
            raise _refused(member, "a pickle of more than tensors") from err
    elif not _RAW_MEMBER.fullmatch(member):
        raise _refused(member, "a member that may be a pickle")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _items(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _items(inner)


def _refused(member: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"{member}: {what}, which can run any code when it is read. Export the model anew with this PyTorch, or set "
        "`trusted: true` for it if you made the file yourself",
    )


MODEL = ExportModel
