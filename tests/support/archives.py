"""Archives of TorchServe for tests, written as torch-model-archiver writes them."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch


def manifest(handler: str, **model: str) -> str:
    """Return the text of a manifest, whose member `model` has `handler` and more."""
    named = {"modelName": "m", "handler": handler, "modelVersion": "1.0", **model}
    document = {"createdOn": "29/11/2026 11:00:00", "runtime": "python", "model": named}
    return json.dumps(document | {"archiverVersion": "0.12.0"}, indent=2)


def archive(file: Path, handler: str, files: dict[str, str | bytes], **model: str) -> Path:
    """Write an archive of `files` to `file`, and return it."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
        target.writestr("MAR-INF/MANIFEST.json", manifest(handler, **model))
    return file


def scripted(module: torch.nn.Module, *example: Any) -> bytes:
    """Return the TorchScript of `module`, traced on `example`, else scripted."""
    file = BytesIO()
    made = torch.jit.trace(module.eval(), example) if example else torch.jit.script(module.eval())
    torch.jit.save(made, file)
    return file.getvalue()
