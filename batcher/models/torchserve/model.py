"""Format `torchserve`: an archive as a model, whose handler is called once for a batch.

The archive is extracted when the model is loaded, into a folder that goes with the model. Code in
it is run only with `trusted: true`; an archive of TorchScript with a default handler has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.reading import read_yaml
from batcher.core.spec import Array
from batcher.errors import InvalidInput, ModelContractError, ModelError, ModelLoadError
from batcher.models.protocol import Arrays, FreshMemory, PartialOutputs, PlainModel
from batcher.models.torchserve import handlers
from batcher.models.torchserve.archive import extract
from batcher.models.torchserve.bodies import body_of, data_of
from batcher.models.torchserve.context import Context, RequestProcessor
from batcher.models.torchserve.labels import PredictionException, list_classes_from_module
from batcher.models.torchserve.manifest import Manifest, read_manifest
from batcher.models.torchserve.modules import names_for_handlers, put_modules
from batcher.models.version_code.importing import import_from_folder

_CLASSES = {
    "base_handler": handlers.BaseHandler,
    "image_classifier": handlers.ImageClassifier,
    "image_segmenter": handlers.ImageSegmenter,
    "object_detector": handlers.ObjectDetector,
}

Handle = Callable[[list[Any], Context], Any]


class TorchServeModel(PlainModel, FreshMemory):
    """An archive with its handler."""

    own_buffers = True  # a handler may keep what it gets

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        super().__init__(definition, settings)
        self._names = [tensor.name for tensor in self.spec.inputs]
        outputs = [tensor.name for tensor in self.spec.outputs]
        if self._names != ["body", "content_type"] or outputs != ["prediction", "content_type"]:
            raise ModelLoadError(
                "expected no inputs and outputs in model.yaml: an archive has body, content_type "
                f"and prediction; got {', '.join((*self._names, *outputs))}"
            )

    def load(self, device: str) -> None:
        """Extract the archive, and initialize its handler. Inference thread."""
        if self._settings.torch_threads is not None:
            torch.set_num_threads(self._settings.torch_threads)
        self._extracted = TemporaryDirectory(prefix="batcher-archive-")
        folder = Path(self._extracted.name)
        extract(self._definition.file, folder)
        manifest = read_manifest(folder)
        self._check_trusted(manifest, folder)
        if manifest.model.get("requirementsFile"):
            self.notes = (
                f"the archive lists libraries in {manifest.model['requirementsFile']}: install "
                "them where the server runs, none is installed by itself",
            )
        # Modules of the archive belong to it, and not to the folder that it stands in.
        self._inner = replace(self._definition, folder=folder)
        put_modules()
        self._context = self._context_of(manifest, folder, device)
        self._handle = self._entry(manifest)

    def _check_trusted(self, manifest: Manifest, folder: Path) -> None:
        """Raise ModelLoadError if the archive brings code, and the model is not trusted."""
        code = sorted(path.name for path in folder.rglob("*.py"))
        if module := manifest.model.get("modelFile"):
            code.append(str(module))  # whatever its name: bytecode and extensions are code as well
        file = str(manifest.model.get("serializedFile") or "")
        is_script = manifest.is_default and file.endswith(".pt")
        if self._settings.trusted or (is_script and not code):
            return
        raise ModelLoadError(
            f"expected `trusted: true`; got {self._definition.file.name}, an archive with "
            f"{', '.join(code[:3]) or file or 'no TorchScript'}, which runs code when it is "
            "loaded: set `trusted: true` for this model if you know who made the archive"
        )

    def _context_of(self, manifest: Manifest, folder: Path, device: str) -> Context:
        config = manifest.model.get("configFile")
        return Context(
            self.spec.name,
            str(folder),
            manifest.document,
            self._settings.max_batch_size,
            int(device.partition(":")[2] or 0) if device.startswith("cuda") else None,
            partial(import_from_folder, self._inner),
            read_yaml(folder / str(config)).values if config else {},
        )

    def _entry(self, manifest: Manifest) -> Handle:
        """Return what answers a batch, initialized: a method of a class, or a function."""
        if manifest.is_default:
            if manifest.handler != "base_handler":
                self.sample = _picture()
            return self._made(_CLASSES[manifest.handler])
        module = self._imported(manifest.handler)
        function = getattr(module, manifest.function or "handle", None)
        if function is not None:
            # TorchServe has such a function set itself up by a first call without data.
            function(None, self._context)
            handle: Handle = function
            return handle
        classes = _handler_classes(module)
        if len(classes) != 1:
            raise ModelLoadError(
                f"{manifest.handler}.py: expected one class with a method `handle`, or a function "
                f"`{manifest.function or 'handle'}`; got "
                f"{', '.join(each.__name__ for each in classes) or 'neither'}"
            )
        return self._made(classes[0])

    def _imported(self, name: str) -> ModuleType:
        """Return the module of a handler. Raises ModelLoadError: it needs more of TorchServe."""
        try:
            return import_from_folder(self._inner, name)
        except ModuleNotFoundError as err:
            if not str(err.name).startswith("ts."):
                raise
            raise ModelLoadError(
                f"{name}.py: expected, of TorchServe, imports of {names_for_handlers()} alone; got "
                f"{err.name}"
            ) from err

    def _made(self, kind: type) -> Handle:
        """Return the method `handle` of an object of the class `kind`, initialized."""
        handler: Any = kind()
        if hasattr(handler, "initialize"):
            handler.initialize(self._context)
        handle: Handle = handler.handle
        return handle

    def operators(self, inputs: Arrays) -> int:
        """Return 0: the number is unknown. Inference thread."""
        return 0

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Call the handler with the requests of a batch. Inference thread."""
        kinds = [kind.decode("latin-1") for kind in inputs["content_type"]]
        rows = [data_of(body, kind) for body, kind in zip(inputs["body"], kinds, strict=True)]
        headers = [{"content-type": kind} for kind in kinds]
        self._context.request_processor = [RequestProcessor(each) for each in headers]
        self._context.request_ids = {place: str(place) for place in range(len(rows))}
        try:
            answers = self._handle(rows, self._context)
        except PredictionException as err:
            raise _failure(err.error_code, err.message) from err
        if not isinstance(answers, list) or len(answers) != len(rows):
            got = len(answers) if isinstance(answers, list) else type(answers).__name__
            raise ModelContractError(
                f"model {self.spec.name!r}: expected a list of {len(rows)} answers, one for each "
                f"request; got {got}"
            )
        return self._outputs(answers)

    def _outputs(self, answers: list[Any]) -> dict[str, Array]:
        """Return bodies and media types; requests whose status is an error have failed."""
        bodies, kinds = (np.empty(len(answers), object) for _ in range(2))
        failed: dict[int, BaseException] = {}
        for place, answer in enumerate(answers):
            code, phrase = self._context.get_response_status(place)
            if code >= 400:
                failed[place] = _failure(code, phrase)
            kind = self._context.get_response_content_type(place)
            bodies[place], kinds[place] = body_of(answer, kind)
        outputs: dict[str, Array] = {"prediction": bodies, "content_type": kinds}
        return PartialOutputs(outputs, failed) if failed else outputs


def _handler_classes(module: ModuleType) -> list[type]:
    """Return the classes of `module` that answer, but for those that others of them extend."""
    found = [each for each in list_classes_from_module(module) if hasattr(each, "handle")]
    return [
        each
        for each in found
        if not any(other is not each and issubclass(other, each) for other in found)
    ]


def _picture() -> dict[str, Any]:
    """Return a request of a black picture, for warm-up."""
    file = BytesIO()
    Image.new("RGB", (256, 256)).save(file, "PNG")
    return {"body": [file.getvalue()], "content_type": [b"image/png"]}


def _failure(code: int, phrase: str) -> InvalidInput | ModelError:
    """Return the error of a request to which a handler has given the status `code`."""
    text = phrase or f"the handler answered with the status {code}"
    return InvalidInput(text) if code < 500 else ModelError(text)


MODEL = TorchServeModel
