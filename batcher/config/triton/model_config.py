"""From the fields of `config.pbtxt` to what `model.yaml` and `models.NAME` would say.

The file stands in the folder of a model, above those of its versions. A version that has a
`model.yaml` of its own is read from that.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from batcher.config.model_settings import ModelSettings
from batcher.config.reading import Source, validate
from batcher.config.triton import running, tensors
from batcher.config.triton.fields import Handler, Reading, ignored, refused
from batcher.config.triton.text_format import Field, Message, parse
from batcher.core.error_text import brief
from batcher.core.names import name_fault
from batcher.errors import ConfigError

CONFIG = "config.pbtxt"
"""The name of the file."""

MAX_PATH_CHARS = 1000
"""Characters of a file's name with its folders: no system opens one of 4,096 bytes."""

MAX_KEPT_CHARS = 16 << 10
"""Characters of a file whose settings are kept: those of 1,024 files then take 16 MiB at most."""

MAX_CONFIG_BYTES = 1 << 20
"""Bytes of a file: real ones have a few thousand."""

_ENSEMBLE = "an ensemble is not read: write its steps as a pipeline (docs/pipelines.md)"
_SEQUENCE = "no state is kept between requests: let it travel with the request"
_OF_PYTHON = "write a class with `predict` for TritonPythonModel (docs/tutorials/from_triton.md)"
_OTHERS = {
    "tensorrt": "an engine of TensorRT runs with TensorRT alone: export the network to ONNX",
    "tensorrt_plan": "an engine of TensorRT runs with TensorRT alone: export the network to ONNX",
    "tensorflow_graphdef": "convert the model to ONNX with tf2onnx",
    "openvino": "convert the model to ONNX, from what it was converted from",
    "python": _OF_PYTHON,
    "ensemble": _ENSEMBLE,
    "fil": "serve its file by itself, format xgboost or lightgbm (docs/formats.md)",
    "dali": "do it in `preprocess` of a class",
    "vllm": "language models that stream are not served",
    "tensorrtllm": "language models that stream are not served",
    "identity": "it is Triton's own test: write a class that returns its inputs",
}
_FORMATS = {
    "onnxruntime": ("onnx", "model.onnx"),
    "onnxruntime_onnx": ("onnx", "model.onnx"),
    "pytorch": ("torchscript", "model.pt"),
    "pytorch_libtorch": ("torchscript", "model.pt"),
    "tensorflow": ("savedmodel", "model.savedmodel"),
    "tensorflow_savedmodel": ("savedmodel", "model.savedmodel"),
}


class ModelConfig(NamedTuple):
    """What a `config.pbtxt` says.

    Attributes:
        source: the values of a `model.yaml`, each with its line.
        settings: settings of the model, as below `models.NAME`.
        notes: of each field that has no meaning here why it has none.
    """

    source: Source
    settings: dict[str, Any]
    notes: tuple[str, ...]


def config_of(folder: Path) -> Path | None:
    """Return the `config.pbtxt` above a version without a `model.yaml`; None without one."""
    path = folder.parent / CONFIG
    is_read = folder.name.isdecimal() and not (folder / "model.yaml").is_file()
    return path if is_read and path.is_file() else None


def read_config(path: Path, name: str, folder: Path) -> ModelConfig:
    """Read the `config.pbtxt` at `path` for the version in `folder` of the model `name`.

    Raises:
        ConfigError: it cannot be read, or asks for what is not served; each line of the message
            names a field and its line.
    """
    return _read(path, name, folder, _text_of(path))


def _text_of(path: Path) -> str:
    """Return the text of the file at `path`. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path.name}: expected at most {MAX_CONFIG_BYTES} bytes; got more")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}") from err


def _read(path: Path, name: str, folder: Path, text: str) -> ModelConfig:
    """Return what the `text` of the file at `path` says; `read_config` says the rest."""
    reading, top = Reading(path.name, path.parent), parse(text, path.name)
    _check_once(reading, top)
    _Top(reading, name).read(top)
    _finish(reading, top, folder)
    reading.check()
    source = Source(reading.values, dict(reading.origins))
    return ModelConfig(source, _checked_settings(reading), tuple(reading.notes))


_MANY = ("input", "output", "instance_group", "parameters", "model_warmup", "cc_model_filenames")
_MANY_MORE = ("metric_tags", "batch_input", "batch_output")


def _check_once(reading: Reading, top: Message) -> None:
    """Refuse fields that are written twice, of which one would be lost."""
    seen: set[str] = set()
    for field in top.fields:
        if field.name in seen and field.name not in (*_MANY, *_MANY_MORE):
            reading.refuse(field, "expected once; got it twice")
        seen.add(field.name)


class _Top:
    """Reads the fields at the top of a file."""

    def __init__(self, reading: Reading, name: str) -> None:
        self._reading = reading
        self._name = name

    def read(self, top: Message) -> None:
        handlers: dict[str, Handler] = {
            "name": self._check_name,
            "platform": self._backend,
            "backend": self._backend,
            "default_model_filename": self._file,
            "max_batch_size": running.max_batch_size,
            "input": tensors.tensor,
            "output": tensors.tensor,
            "dynamic_batching": running.dynamic_batching,
            "instance_group": running.instance_group,
            "version_policy": running.version_policy,
            "parameters": running.parameters,
            "optimization": running.optimization,
            "model_warmup": tensors.warmup,
            "model_transaction_policy": running.transaction,
            "response_cache": running.response_cache,
            **_OTHER_FIELDS,
        }
        self._reading.each(Field(self._reading.file, top, 1), handlers)

    def _check_name(self, reading: Reading, field: Field) -> None:
        text = reading.text(field)
        # The settings may know the model by another name than that of its folder.
        if text and text not in (self._name, reading.folder.name):
            folder = reading.folder.name
            reading.refuse(field, f"expected the name of its folder, {folder!r}; got {text!r}")

    def _backend(self, reading: Reading, field: Field) -> None:
        text = reading.text(field)
        if text in _FORMATS:
            reading.values["format"], file = _FORMATS[text]
            reading.values.setdefault("file", file)
            reading.origins[("format",)] = reading.place(field.line)
        elif text:
            known = f"expected one of {', '.join(_FORMATS)}; got {text!r}"
            reading.refuse(field, f"{known}: {_OTHERS[text]}" if text in _OTHERS else known)

    def _file(self, reading: Reading, field: Field) -> None:
        text = reading.text(field)
        steps = Path(text).parts
        if not steps or len(text) > MAX_PATH_CHARS or any(map(name_fault, steps)):
            reading.refuse(field, f"expected a file in the folder of a version; got {brief(text)}")
            return
        reading.values["file"] = text
        reading.origins[("file",)] = reading.place(field.line)


_OTHER_FIELDS: dict[str, Handler] = {
    "runtime": ignored("one library runs each format"),
    "sequence_batching": refused(_SEQUENCE),
    "ensemble_scheduling": refused(_ENSEMBLE),
    "batch_input": refused("inputs that the batcher makes are `mask` and `lengths` of padded rows"),
    "batch_output": refused("outputs of unequal rows are `unpad: true` of padded rows"),
    "cc_model_filenames": refused("one file serves on every device"),
    "model_operations": refused("write `imports` in a model.yaml, a module that loads the library"),
    "model_repository_agents": refused("no program runs on the files of a model"),
    "metric_tags": ignored("metrics carry the name and the version of a model"),
    "model_metrics": ignored("metrics have buckets of their own"),
}


def _finish(reading: Reading, top: Message, folder: Path) -> None:
    """Complete what several fields say together."""
    names = {field.name for field in top.fields}
    if "format" not in reading.values and not names & {"platform", "backend"}:
        found = [each for each in dict(_FORMATS.values()).items() if (folder / each[1]).exists()]
        if not found:
            files = "model.onnx, model.pt or model.savedmodel"
            known = ", ".join(_FORMATS)
            reading.fault(1, f"backend: expected one of {known}, or a file {files}; got none")
            return
        # As Triton does: the name of the file tells the backend.
        reading.values["format"] = found[0][0]
        reading.values.setdefault("file", found[0][1])
    file = folder / str(reading.values.get("file"))
    if file.is_dir() and (file / "model.onnx").is_file():
        reading.values["file"] += "/model.onnx"  # a graph whose weights are files of their own
    if "max_batch_size" not in reading.settings and names & {"input", "output"}:
        tensors.without_batch(reading, top)
    tensors.with_warmup(reading)
    reading.settings.pop("_count", None)


def _checked_settings(reading: Reading) -> dict[str, Any]:
    """Return the settings as `config.yaml` has them.

    Raises ConfigError: one is out of bounds, or contradicts another.
    """
    origins = {key[1:]: place for key, place in reading.origins.items() if key[:1] == ("settings",)}
    source = Source(dict(reading.settings), {(): reading.file, **origins})
    checked = validate(ModelSettings, source, {})
    if contradiction := checked.contradiction():
        setting, expected, got = contradiction
        raise ConfigError(f"{source.origin((setting,))}: {setting}: expected {expected}; got {got}")
    return {name: getattr(checked, name) for name in reading.settings}


def settings_of(folder: Path, name: str) -> dict[str, Any]:
    """Return the settings that a `config.pbtxt` has for the version in `folder`; none without one.

    Of a file that cannot be read there are none either: the load of the version says why.
    """
    path = config_of(folder)
    if path is None:
        return {}
    try:
        text = _text_of(path)
        of_text = _settings if len(text) <= MAX_KEPT_CHARS else _settings.__wrapped__
        return dict(of_text(path, name, folder, text))
    except ConfigError:
        return {}


@lru_cache(maxsize=1024)
def _settings(path: Path, name: str, folder: Path, text: str) -> dict[str, Any]:
    """Return the settings that `text` says. Raises ConfigError, which is not kept.

    They are kept by that text: each look at a repository asks several times for each model, and to
    read a file takes a millisecond of Python.
    """
    return _read(path, name, folder, text).settings
