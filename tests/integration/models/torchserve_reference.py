"""Answers of TorchServe's own Python for archives, in a process of its own.

    python torchserve_reference.py < tasks.json

It loads each extracted archive as a worker of TorchServe does, and calls what TorchServe would call
with a batch. The modules of an archive are forgotten behind it: archives have modules of one name.
The front of TorchServe, in Java, is left out: it passes bodies on as they are.
"""

from __future__ import annotations

import base64
import json
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock


def stub_captum() -> None:
    """Have handlers import captum, which explains answers and is not asked here."""
    module = ModuleType("captum.attr")
    for name in ("IntegratedGradients", "TokenReferenceBase", "LayerIntegratedGradients"):
        setattr(module, name, type(name, (), {"__init__": lambda self, *_: None}))
    sys.modules["captum"] = ModuleType("captum")
    sys.modules["captum.attr"] = module


def answers(folder: str, handler: str, requests: list[list[str]]) -> list[str]:
    """Return the bodies that TorchServe answers to `requests`, media type and body each."""
    from ts.context import RequestProcessor
    from ts.model_loader import ModelLoaderFactory

    sys.path.insert(0, folder)
    service = ModelLoaderFactory.get_model_loader().load(
        "m", folder, handler, None, len(requests), None, True
    )
    data = [{"body": value_of(kind, base64.b64decode(body))} for kind, body in requests]
    service.context.metrics = MagicMock()
    service.context.request_processor = [RequestProcessor({}) for _ in data]
    service.context.request_ids = {place: str(place) for place in range(len(data))}
    return [text_of(answer) for answer in service._entry_point(data, service.context)]


def value_of(kind: str, body: bytes) -> Any:
    """Return what TorchServe makes of a body, as its `otf_message_handler` does."""
    if kind == "application/json":
        return json.loads(body.decode("utf-8"))
    return body.decode("utf-8") if kind.startswith("text") else bytearray(body)


def text_of(answer: Any) -> str:
    """Return what TorchServe sends for an answer of the handler, in base64."""
    if isinstance(answer, bytes | bytearray):
        body = bytes(answer)
    else:
        text = answer if isinstance(answer, str) else json.dumps(answer, indent=2)
        body = text.encode()
    return base64.b64encode(body).decode()


if __name__ == "__main__":
    stub_captum()
    import ts.torch_handler.image_classifier  # noqa: F401  # what takes long, once for all

    for task in json.load(sys.stdin):
        known = set(sys.modules)
        found = answers(task["folder"], task["handler"], task["requests"])
        with open(task["answers"], "w", encoding="utf-8") as file:
            json.dump(found, file)
        sys.path.remove(task["folder"])
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(task["folder"]):
                del sys.modules[name]
