"""A session of onnxruntime that no later change of its files can reach.

onnxruntime reads a graph at once, but weights in files of their own (`model.onnx.data`) it maps
into memory. Somebody who copies new weights over such a file would change the answers of the
session that runs, half old and half new, and where the file becomes shorter the process would end
with SIGBUS. So such weights are read into memory of this process before the session is made, one
tensor after the other.

onnxruntime takes tensors of that kind only for initializers of the outermost graph, and numpy has
no array of every datatype. For a graph with other external tensors the files are copied into the
folder for temporary files, opened there, and removed at once.
"""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime

from batcher.config.onnx_file import ExternalTensor, OnnxFile, read_onnx
from batcher.core.spec import DATATYPES, Array
from batcher.errors import ModelLoadError

_UNSHARED = ("BYTES", "BOOL", "BF16", "")
"""Datatypes of which numpy has no array that onnxruntime takes by reference."""

_ERRORS_ALONE = 3
"""Least severity of what onnxruntime logs.

onnxruntime warns again in each run, and so once a batch, of outputs whose shape is not the one that
the graph declares. Converters of trees declare one label, whatever the number of rows.
"""


_NOTHING_BUT_THE_END = 4
"""Least severity of what onnxruntime logs of a run.

Whatever fails in a run is raised as well, and logged in our own way. By itself onnxruntime would
write a line, in colours, for each request that a graph fails on: clients could fill a disk.
"""


def has_cuda() -> bool:
    """Return whether this build of onnxruntime can run on CUDA. Any thread."""
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def quiet_run() -> Any:
    """Return the options of runs, which write nothing. Any thread."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _NOTHING_BUT_THE_END
    return options


def open_session(path: Path, graph: OnnxFile, threads: int, providers: list[Any]) -> Any:
    """Return a session of the file at `path`.

    Args:
        path: the file.
        graph: what the file says of its external weights.
        threads: threads inside one operator; 0 leaves the number to onnxruntime.
        providers: what the session runs on, the best first.

    Raises:
        ModelLoadError: weights lie in a file outside of the folder, or the file is too short.

    Inference thread.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ALONE
    if not graph.external:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    _check_locations(path, graph)
    is_shared = all(tensor.name and tensor.dtype not in _UNSHARED for tensor in graph.external)
    # Values on the CPU are no values for a session on another device.
    if not is_shared or providers != ["CPUExecutionProvider"]:
        return _of_copies(path, graph, options, providers)
    return _of_values(path, graph, options, providers)


def read_graph(path: Path) -> OnnxFile:
    """Return what the file at `path` says; nothing for a file in another of onnxruntime's formats.

    Inference thread.
    """
    try:
        return read_onnx(path, nodes=True)
    except (ValueError, RecursionError):
        return OnnxFile()


def _check_locations(path: Path, graph: OnnxFile) -> None:
    """Check that all weights lie in the folder of the file at `path`. Raises ModelLoadError."""
    for location in {tensor.location for tensor in graph.external}:
        place = Path(location)
        if not location or place.is_absolute() or ".." in place.parts:
            raise ModelLoadError(
                f"{path.name}: expected weights in a file beside it; got {location!r:.200}"
            )
        if not (path.parent / place).is_file():
            raise ModelLoadError(
                f"{path.name}: expected its weights in {location!r:.200} beside it; there is no "
                "such file"
            )


def _external_value(path: Path, tensor: ExternalTensor) -> Any:
    """Return the value of `tensor`, read into memory. Raises ModelLoadError. Inference thread."""
    array: Array = np.empty(tensor.shape, DATATYPES[tensor.dtype].numpy)
    with (path.parent / tensor.location).open("rb") as file:
        file.seek(tensor.offset)
        read = file.readinto(array.reshape(-1).view(np.uint8).data) if array.nbytes else 0
    if read != array.nbytes:
        raise ModelLoadError(
            f"{tensor.location}: expected {array.nbytes} bytes of {tensor.name!r} from byte "
            f"{tensor.offset}; got {read}"
        )
    # By this protocol the value owns a reference to the array; the other ways leave that to us.
    return onnxruntime.OrtValue.from_dlpack(array)


def _of_values(path: Path, graph: OnnxFile, options: Any, providers: list[Any]) -> Any:
    """Return a session whose external weights are in memory already. Inference thread."""
    values = {tensor.name: _external_value(path, tensor) for tensor in graph.external}
    for name, value in values.items():
        options.add_initializer(name, value)
    # The session frees what its kernels have packed anew: nobody else holds the values by then.
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _of_copies(path: Path, graph: OnnxFile, options: Any, providers: list[Any]) -> Any:
    """Return a session of copies of all files, which nobody can find any more. Inference thread."""
    with TemporaryDirectory(prefix="batcher-onnx-") as folder:
        for name in (path.name, *{tensor.location for tensor in graph.external}):
            copy = Path(folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copyfile(path.parent / name, copy)
        # What onnxruntime has mapped stays, though the files have no names any more.
        return onnxruntime.InferenceSession(
            str(Path(folder, path.name)), options, providers=providers
        )
