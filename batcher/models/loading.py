"""From a definition to a model that is loaded, compiled, warmed up and known to keep its contract.

    definition -> make -> load -> compile, capture (if set) -> CheckedModel -> warm up (if set)

One table says which module loads which format. The module is imported by its name when a model of
that format is loaded, so `import batcher.models.loading` imports neither PyTorch nor onnxruntime: a
server of ONNX models alone needs no PyTorch.

Loading runs code of the model's author. Whatever that code raises becomes one ModelLoadError that
names the model, its version and the reason. Two failures are forgiven: a model that cannot be
compiled, or captured as CUDA graphs, is served as it is, and `progress` says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.error_text import message
from batcher.core.git_pointers import FETCHING, pointers_among
from batcher.core.installing import FORMAT_LIBRARIES, how_to_install
from batcher.errors import BatcherError, ModelLoadError
from batcher.models.capturing import capture
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import is_out_of_memory
from batcher.models.file_facts import unchanged
from batcher.models.first_imports import imported
from batcher.models.hook_turns import new_notes
from batcher.models.load_steps import LoadSteps
from batcher.models.memory_limit import MemoryLimit, advice
from batcher.models.own_code import first_cause, with_place
from batcher.models.protocol import Model, Progress
from batcher.models.reshaped import ReshapedModel, of_model
from batcher.models.sample import sample_of
from batcher.models.sized import SizedModel
from batcher.models.unused_settings import unused_notes
from batcher.models.version_code.importing import import_from_folder
from batcher.models.version_files import version_files
from batcher.models.warmup import warm_up

_MODULES = {
    "python": "batcher.models.pytorch.python_class",
    "torchscript": "batcher.models.pytorch.torchscript",
    "export": "batcher.models.pytorch.export",
    "onnx": "batcher.models.onnx.model",
    "sklearn": "batcher.models.tables.sklearn",
    "xgboost": "batcher.models.tables.boosters",
    "lightgbm": "batcher.models.tables.boosters",
    "torchserve": "batcher.models.torchserve.model",
    "pmml": "batcher.models.pmml.model",
    "keras": "batcher.models.pytorch.keras_model",
    "savedmodel": "batcher.models.saved_model",
}
"""The module of each format. Its `MODEL(definition, settings)` returns a Model, not loaded yet."""

IN_OWN_PROCESS = ("savedmodel",)
"""Formats whose models run as with `worker: process`, whatever the settings say.

TensorFlow takes its number of threads once in a process, gives no memory back, and brings its own
copies of libraries that PyTorch and gRPC bring as well.
"""

_WITHOUT_TORCH = ("sklearn", "xgboost", "lightgbm", "pmml", "savedmodel")
"""Formats whose models run on the CPU alone, and for which PyTorch need not be imported."""

_COMPILED = ("python", "export")
"""Formats whose models can be compiled."""

_OF_EXTRAS = ("onnx", "keras", *_WITHOUT_TORCH)
"""Formats whose libraries come with extras."""


def load_model(
    definition: ModelDefinition,
    settings: ModelSettings,
    progress: Progress,
    maker: Any = None,
    sample: Any = None,
    is_alone: bool = False,
) -> CheckedModel:
    """Load and warm up a model of `definition`, as `settings` say; `maker` as for `make_model`.

    `progress` hears of each step in words. `sample` are rows by name, in place of the model's own.
    `is_alone` says that this process is the model's own. Raises ModelLoadError: the load or the
    warm-up fails; the text says which. Inference thread.
    """
    steps = LoadSteps(progress)
    limit = MemoryLimit(settings, is_alone)
    checked = _loaded(definition, settings, steps, limit, maker, sample)
    if excess := limit.excess(checked.model.native_bytes):
        del checked  # or the error would hold on to the memory
        with _explained(definition, settings, ""):
            limit.refuse(excess)
    if note := checked.model.training_note():  # known only after the first batch
        steps(f"note: {note}")
    steps.are_over = True
    return checked


def _loaded(
    definition: ModelDefinition,
    settings: ModelSettings,
    progress: Progress,
    limit: MemoryLimit,
    maker: Any,
    sample: Any,
) -> CheckedModel:
    """Load and warm up a model within its `limit`, as `load_model` does. Inference thread."""
    with _explained(definition, settings, "import"):
        progress("loading")
        model = make_model(of_model(definition), settings, maker)
        model.sample = model.sample if sample is None else sample
    with _explained(definition, settings, "load"), unchanged(_read_files(definition)):
        limit.begin(definition.format, _device(definition, settings), progress)
        checked = _load(model, definition, settings, progress)
        limit.loaded()
    if settings.warmup and not _is_unknown(checked, definition, progress):
        with _explained(definition, settings, "warmup"):
            warm_up(checked, settings.max_batch_size, progress, settings.max_batch_elements)
    checked.work_done()  # was for no client
    return checked


def _is_unknown(checked: CheckedModel, definition: ModelDefinition, progress: Progress) -> bool:
    """Return whether nobody knows a row that the model takes; report so. Inference thread."""
    if definition.format != "torchserve" or checked.sample is not None:
        return False
    progress(
        "warm-up skipped: a handler of an archive's own takes what its author knows; name a "
        "`sample` in model.yaml, as JSON with `body` and `content_type`"
    )
    return True


def make_model(definition: ModelDefinition, settings: ModelSettings, maker: Any = None) -> Any:
    """Return the model of `definition`, not loaded yet; import what it names.

    `maker` is the class or function that makes a model of format `python`, where that is an object
    of the program; None imports what `definition` names. Any thread.
    """
    module = import_format(definition)
    for name in definition.imports:
        _import_for(definition, name)
    if maker is not None:
        return module.made_by(maker, definition, settings)
    return module.MODEL(definition, settings)


def _read_files(definition: ModelDefinition) -> list[Path]:
    """Return the files that a load reads, besides code. Any thread."""
    files = [definition.file, definition.weights]
    if definition.format == "savedmodel":
        files += definition.file.rglob("*")
    return [file for file in files if file is not None and file.is_file()]


def import_format(definition: ModelDefinition) -> ModuleType:
    """Import the module for the format of `definition`, and with it PyTorch or onnxruntime.

    Raises:
        ModelLoadError: onnxruntime, an extra, is not installed; the message names the extra.

    Any thread.
    """
    if definition.plan is not None:
        raise ModelLoadError(
            "format: expected a model; got a pipeline, which only a server runs, with its models"
        )
    with extras_of(definition.format):
        return import_module(_MODULES[definition.format])


@contextmanager
def extras_of(form: str) -> Iterator[None]:
    """Turn the error of a library that the format `form` needs into one that says how to get it.

    What the code of a class imports is for its author to install, and shown with the author's line.

    Any thread.
    """
    try:
        yield
    except ModuleNotFoundError as err:
        extra = FORMAT_LIBRARIES.get((err.name or "").partition(".")[0])
        if extra is None or form not in _OF_EXTRAS:
            raise
        raise ModelLoadError(
            f"format: expected the extra {extra}; got none: {err}. It comes with "
            f"{how_to_install(extra)}"
        ) from err


def compile_ahead(definition: ModelDefinition, settings: ModelSettings) -> Path:
    """Return the compiled package of a model, made now if there is none.

    Raises:
        ModelLoadError: the model cannot be compiled; the message says why.

    Any thread.
    """
    if definition.format not in _COMPILED:
        got = f"{definition.format}, of model {definition.spec.name!r}"
        raise ModelLoadError(f"expected a model of format export or python to compile; got {got}")
    aoti = import_module("batcher.models.pytorch.aoti")
    device = import_module("torch").device(_device(definition, settings))
    package: Path = aoti.find_or_compile(aoti.Wanted(definition, settings, device))
    return package


def _load(
    model: Model, definition: ModelDefinition, settings: ModelSettings, progress: Progress
) -> CheckedModel:
    """Load and compile `model`; raises whatever the model raises. Inference thread."""
    imported()
    device = _device(definition, settings)
    if device != "cpu":
        # The device of this thread, for code of the model that names no device.
        import_module("torch").cuda.set_device(device)
    with extras_of(definition.format):
        model.load(device)
    if settings.compile != "none":
        _compile(model, progress)
    model = _in_batches(model, definition, settings, progress)
    checked = CheckedModel(model, settings.finite_outputs)
    _tell_notes(checked, definition, settings, device, progress)
    checked.sample = sample_of(definition, model.sample)
    return checked


def _in_batches(
    model: Model, definition: ModelDefinition, settings: ModelSettings, progress: Progress
) -> Model:
    """Return `model` as it takes batches: beside copies, of some sizes, of rows as clients know.

    Inference thread.
    """
    if settings.overlap_copies:
        model = model.overlapped()
    sizes = definition.batch_sizes
    if settings.cuda_graphs:
        sizes = _capture(model, definition, settings, progress) or sizes
    if sizes:
        model = SizedModel(model, sizes)
    if any(definition.reshapes):
        model = ReshapedModel(model, definition)
    return model


def _import_for(definition: ModelDefinition, name: str) -> None:
    """Import the module `name` of the model's folder, or an installed one.

    Raises:
        ModelLoadError: there is no such module; the message says so.

    Any thread.
    """
    try:
        import_from_folder(definition, name)
    except ModuleNotFoundError as err:
        raise ModelLoadError(
            f"imports: expected modules of the model's folder or of installed libraries; got "
            f"{name!r}: {err}"
        ) from err


def _tell_notes(
    model: CheckedModel,
    definition: ModelDefinition,
    settings: ModelSettings,
    device: str,
    progress: Progress,
) -> None:
    """Report what loading has shown, and what no failure follows from. Inference thread."""
    own = (*model.model.notes, *new_notes(model.model))
    for note in (*definition.notes, *own, *unused_notes(settings, definition.format, device)):
        progress(f"note: {note}")
    max_batch_size = settings.max_batch_size
    if model.largest(max_batch_size) < max_batch_size:
        progress(
            f"note: batches have at most {model.model.max_rows} rows, since the model takes no "
            f"more at once; max_batch_size is {max_batch_size}. A model that was exported for one "
            "row takes more when its first axis is exported as free (`dynamic_shapes`)"
        )


def _compile(model: Model, progress: Progress) -> None:
    """Compile a model; if that fails, the model stays as it is. Inference thread."""
    try:
        model.compile(progress)
    # Whatever stands in the compiler's way: the model itself is sound.
    except Exception as err:
        progress(f"not compiled: {reason_of(err)}. It is served as it is")


def _capture(
    model: Model, definition: ModelDefinition, settings: ModelSettings, progress: Progress
) -> tuple[int, ...]:
    """Capture a model as CUDA graphs, return their sizes; if that fails, the model stays as it is.

    Inference thread.
    """
    try:
        return capture(model, definition, settings, progress)
    # Whatever stands in the way of a graph: the model itself is sound.
    except Exception as err:
        if settings.cuda_graphs != "auto" or _device(definition, settings) != "cpu":
            progress(f"no CUDA graphs: {reason_of(err)}. It is served as it is")
        return ()


def _device(definition: ModelDefinition, settings: ModelSettings) -> str:
    """Return the device for a model. Any thread."""
    setting = settings.devices[0]
    if definition.format in _WITHOUT_TORCH:
        return "cpu"
    if setting == "auto" and definition.format == "onnx":
        has_cuda = import_module("batcher.models.onnx.session").has_cuda()
        setting = setting if has_cuda else "cpu"
    # PyTorch knows which devices there are; what runs on the CPU must not wait for its import,
    # which takes two seconds.
    if setting == "cpu":
        return setting
    device: str = import_module("batcher.models.pytorch.module").present_device(setting)
    return device


@contextmanager
def _explained(definition: ModelDefinition, settings: ModelSettings, stage: str) -> Iterator[None]:
    """Turn whatever is raised meanwhile into the ModelLoadError that explains it. Any thread."""
    # BaseException: whatever a model's own code raises is the reason that it cannot be served.
    try:
        yield
    except BaseException as err:
        title = f"model {definition.spec.name!r} version {definition.spec.version}"
        advice = _advice(err, definition, settings)
        raise ModelLoadError(f"{title}: {with_place(reason_of(err), err)}{advice}", stage) from err


def _advice(error: BaseException, definition: ModelDefinition, settings: ModelSettings) -> str:
    """Return what to do about `error`, which stands in the way of a load; mostly nothing.

    Any thread.
    """
    first = first_cause(error)
    signals = isinstance(first, ValueError) and "signal only works in main thread" in message(first)
    if signals and settings.worker == "thread":
        return (
            ". Signals belong to this server, and its models run on threads: set `worker: process` "
            "for a model, or a library, that installs signal handlers"
        )
    if names := _pointers(definition):
        return f". {', '.join(names)}: expected the file; got {FETCHING}"
    if settings.memory_limit is not None and is_out_of_memory(error):
        return f". The model may take its memory_limit{advice(settings)}"
    if name := _beside(first, definition.folder):
        return (
            ". Paths begin in the working directory of the server. For the file beside the model "
            f"write `Path(__file__).parent / {name!r}`, with `from pathlib import Path`"
        )
    return ""


def _pointers(definition: ModelDefinition) -> list[str]:
    """Return the names of the model's files that are pointers of Git LFS. Any thread."""
    single = definition.file if definition.is_single else None
    return pointers_among(version_files(definition.folder, single))


def _beside(error: BaseException, folder: Path) -> str:
    """Return the relative path that was not found, but is there in `folder`; mostly empty.

    Any thread.
    """
    name = getattr(error, "filename", None)
    if not isinstance(error, FileNotFoundError) or not isinstance(name, str) or not name:
        return ""
    return name if not Path(name).is_absolute() and (folder / name).exists() else ""


def reason_of(error: BaseException) -> str:
    """Return in words why something failed, and what that was raised from. Any thread."""
    # The texts of our own errors say enough without the name of their class and without a cause.
    if isinstance(error, BatcherError):
        return message(error) or type(error).__name__
    first = first_cause(error)
    reason, cause = _named(error), _named(first)
    # `transformers` says only that a module of its own could not be imported.
    return reason if first is error else f"{reason}; the cause is {cause}"


def _named(error: BaseException) -> str:
    """Return class and message of `error`. Any thread."""
    text, name = message(error), type(error).__name__
    return f"{name}: {text}" if text else name
