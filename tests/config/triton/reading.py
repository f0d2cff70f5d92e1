"""Reads the files of `configs/`, each as the `config.pbtxt` of a model with its file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batcher.config.triton.model_config import read_config
from batcher.errors import ConfigError

CONFIGS = Path(__file__).parent / "configs"
LABELS = "tench\ngoldfish\nshark\nray\n"


def outcome(name: str, folder: Path) -> dict[str, Any]:
    """Return what is read of a file, or what is refused, as `expected.yaml` has it."""
    version = folder / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version.parent / "labels.txt").write_text(LABELS)
    config = version.parent / "config.pbtxt"
    config.write_text((CONFIGS / f"{name}.pbtxt").read_text())
    try:
        read = read_config(config, name, version)
    except ConfigError as err:
        return {"refused": str(err).splitlines()}
    tensors = {
        kind: [_text(each) for each in read.source.values.get(kind, ())]
        for kind in ("inputs", "outputs")
    }
    return {
        "format": read.source.values["format"],
        "file": read.source.values["file"],
        **{kind: texts for kind, texts in tensors.items() if texts},
        "settings": {key: _plain(each) for key, each in read.settings.items()},
        **({"notes": list(read.notes)} if read.notes else {}),
    }


def _text(tensor: dict[str, Any]) -> str:
    more = {key: each for key, each in tensor.items() if key not in ("name", "dtype", "shape")}
    shape = ",".join(map(str, tensor["shape"]))
    return f"{tensor['name']} {tensor['dtype']}[{shape}]{f' {more}' if more else ''}"


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return list(value) if isinstance(value, tuple) else value
