"""Format `savedmodel`: a signature of TensorFlow's SavedModel, called once for a batch.

TensorFlow is no dependency of this server: whoever serves such a file installs it. A SavedModel is
a program of TensorFlow, which may read and write files while it is loaded and whenever it runs, so
it is loaded only with `trusted: true`.

TensorFlow takes its number of threads before its first operation, and keeps it. So the model has a
process of its own (`loading.py`), and there TensorFlow is told how many threads are the model's.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import Any

from batcher.config.saved_model.signatures import FILE, read_saved_model
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.output_arrays import plain_array
from batcher.models.protocol import Arrays, FreshMemory, PlainModel

_UNTRUSTED = (
    "a SavedModel, a program of TensorFlow that can read and write files: set `trusted: true` for "
    "this model if you know who made it (`--set models.NAME.trusted=true`, or in config.yaml below "
    "`models`)"
)
_ADVICE = (
    "`pip install tensorflow-cpu`, or convert the model to ONNX with tf2onnx (`python -m "
    "tf2onnx.convert --saved-model FOLDER --output model.onnx`), which is served without TensorFlow"
)
_APART = "a SavedModel is served in a process of its own, as with `worker: process`"

_ERRORS_ALONE = "2"
"""Least severity of what TensorFlow logs, as it names that."""

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _ERRORS_ALONE)
with suppress(Exception):  # a load says why
    # Here, since the import takes seconds: a spare process has it before a model is needed.
    import_module("tensorflow")


def tensorflow() -> Any:
    """Return the module of TensorFlow.

    Raises:
        ModelLoadError: it is not installed, cannot be imported, or is of another kind than 2.

    Any thread.
    """
    try:
        found = import_module("tensorflow")
    # The libraries that it was built against may be there in another version, in many ways.
    except Exception as err:
        got = "none" if isinstance(err, ModuleNotFoundError) else f"{type(err).__name__}: {err}"
        raise ModelLoadError(f"expected the package tensorflow; got {got}: {_ADVICE}") from err
    version = str(getattr(found, "__version__", "a package without a version"))
    if not version.startswith("2."):
        raise ModelLoadError(f"expected TensorFlow 2; got {version:.40}: {_ADVICE}")
    return found


class SavedModel(PlainModel, FreshMemory):
    """One signature of a SavedModel, on the CPU."""

    one_call = True
    notes = (_APART,)

    def load(self, device: str) -> None:
        """Load the folder with TensorFlow.

        Raises:
            ModelLoadError: the model is not trusted, the settings name a GPU, or TensorFlow is not
                there; or the signature is not what `saved_model.pb` says.

        Inference thread.
        """
        home = self._definition.file
        self._check_settings()
        self._tf = tensorflow()
        _use(self._tf, self._settings.torch_threads)
        tags = read_saved_model(home / FILE).tags
        # What was loaded holds the variables, which the signature alone does not keep.
        self._loaded = self._tf.saved_model.load(str(home), tags=list(tags) or None)
        self._call = self._loaded.signatures[self._definition.entry]
        _, takes = self._call.structured_input_signature
        if any(each.shape.rank and each.shape[0] == 1 for each in takes.values()):
            self.max_rows = 1

    def _check_settings(self) -> None:
        """Raise ModelLoadError unless the settings allow the load. Inference thread."""
        if not self._settings.trusted:
            name = self._definition.file.name
            raise ModelLoadError(f"expected `trusted: true`; got {name}, {_UNTRUSTED}")
        if self._settings.devices[0].startswith("cuda"):
            raise ModelLoadError(
                f"expected `device: cpu`; got {self._settings.devices[0]}: a SavedModel runs on "
                "the CPU. Convert it to ONNX for a GPU"
            )

    def operators(self, inputs: Arrays) -> int:
        """Return 1: a run is one native call. Inference thread."""
        return 1

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Call the signature with one batch. Inference thread."""
        found = self._call(
            **{tensor.name: self._tensor(tensor.datatype.name, inputs[tensor.name])
               for tensor in self.spec.inputs}
        )  # fmt: skip
        return {each.name: self._array(each.name, found[each.name]) for each in self.spec.outputs}

    def _tensor(self, dtype: str, array: Array) -> Any:
        """Return `array` as a tensor with memory of its own. Inference thread."""
        tf = self._tf
        if dtype == "BF16":
            return tf.bitcast(tf.constant(array), tf.bfloat16)
        return tf.constant(array, tf.string) if dtype == "BYTES" else tf.constant(array)

    def _array(self, name: str, tensor: Any) -> Array:
        """Return an output as an array. Raises ModelContractError. Inference thread."""
        tf = self._tf
        if tensor.dtype == tf.bfloat16:
            tensor = tf.bitcast(tensor, tf.uint16)
        return plain_array(tensor.numpy(), f"output {name!r}")


def _use(tf: Any, threads: int | None) -> None:
    """Have TensorFlow run on the CPU, with so many threads. Any thread."""
    # Where a program has run TensorFlow before, what that program has set stays.
    with suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
        if threads is not None:
            # Of an operation; and operations that could run beside each other do not.
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)


MODEL = SavedModel
