"""Runs an AOTInductor package without the interpreter lock.

PyTorch's own loader keeps the lock while the model runs: a batch of 50 ms would stop the event loop
for 50 ms. A package holds a library with an interface in C, and a call through ctypes releases the
lock until the call returns.

Tensors cross that interface as handles, which are plain pointers. Each handle owns a reference to
its tensor, so every handle must be deleted exactly once:

| handles of | made by | deleted by |
|---|---|---|
| inputs | `unsafe_alloc_void_ptrs_from_tensors` | the library, during the run |
| outputs | the library, during the run | `CompiledModule`, after the run |
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from weakref import finalize
from zipfile import ZipFile

import torch

from batcher.core.own_folder import OwnFolder
from batcher.errors import ModelLoadError
from batcher.models.pytorch.shared_library import close_library, open_library

FOLDER_PREFIX = "batcher-aoti-"
"""Of the temporary folders that packages are unpacked into. On the CPU a folder is removed as soon
as the library is open, on CUDA when the model is unloaded, since kernels are read late.
"""

_SUCCESS = 0
_Handles = ctypes.POINTER(ctypes.c_void_p)

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class UnusableLibrary(Exception):
    """The library of a package does not fit this PyTorch, or is damaged."""


_NOT_THE_LIBRARY = re.compile("map segment|[Pp]ermission|annot allocate|No such file")
"""What the loader says of a library where the folder or the memory is at fault."""


class CompiledModule:
    """The model in a package. Called with its inputs in order; returns its outputs in order.

    The native container, which holds the weights, is freed with this object. The library leaves the
    memory with the thread that has loaded it, or later: the library has variables of that thread.
    """

    def __init__(self, package: Path, device: torch.device) -> None:
        """Load the library in `package` for `device`.

        Raises:
            BadZipFile: the package is damaged.
            UnusableLibrary: the library is not one for this PyTorch.
            OSError: there is no temporary folder with room whose files may be run.
            ModelLoadError: the library refuses.

        Inference thread.
        """
        self._device = device
        self._folder = OwnFolder(FOLDER_PREFIX)
        library, path = _unpacked_library(package, self._folder.path)
        container = _new_container(library, device, path.parent)
        # Not at the end of the process, which frees everything at once.
        finalize(self, _free, library, container).atexit = False
        # Kernels for CUDA are read from the folder later.
        if device.type == "cpu":
            self._folder.remove()
        self._library = library
        self._container = container
        self._run = _run_function(library)
        self._delete = _delete_function()
        self._output_count = _count_outputs(library, container)

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Run one batch.

        Raises:
            RuntimeError: the library failed; the message says why.

        Inference thread.
        """
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(inputs))
        input_handles = (ctypes.c_void_p * len(inputs))(
            *[_get_pointer(capsule, None) for capsule in capsules]
        )
        output_count = self._output_count
        output_handles = (ctypes.c_void_p * output_count)()
        is_cuda = self._device.type == "cuda"
        stream = torch.cuda.current_stream(self._device).cuda_stream if is_cuda else None
        status = self._run(
            self._container, input_handles, len(inputs), output_handles, output_count, stream, None
        )
        if status != _SUCCESS:
            raise RuntimeError(f"the compiled model failed: {_last_error(self._library)}")
        return self._tensors(output_handles)

    def _tensors(self, handles: ctypes.Array[ctypes.c_void_p]) -> list[torch.Tensor]:
        """Return the tensors of `handles`, and delete the handles. Inference thread."""
        try:
            # In spite of its name this function takes a second reference, and steals none.
            take = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr
            return [take(_new_capsule(handle, None, None)) for handle in handles]
        finally:
            for handle in handles:
                self._delete(handle)


def _unpacked_library(package: Path, folder: Path) -> tuple[ctypes.CDLL, Path]:
    """Return the library of `package`, unpacked into `folder` and opened, and its path.

    Raises:
        BadZipFile: the package is damaged.
        UnusableLibrary: the library is not one for this PyTorch.
        OSError: there is no room, or files in `folder` may not be run.

    Inference thread.
    """
    with ZipFile(package) as archive:
        archive.extractall(folder)
    paths = list(folder.rglob("*.so"))
    if len(paths) != 1:
        raise UnusableLibrary(f"expected one library; got {len(paths)}")
    try:
        return open_library(paths[0]), paths[0]
    except OSError as err:
        if _NOT_THE_LIBRARY.search(str(err)):
            raise
        raise UnusableLibrary(str(err)) from err


def _free(library: ctypes.CDLL, container: ctypes.c_void_p) -> None:
    """Free `container`, and close its library. Any thread."""
    delete = library.AOTInductorModelContainerDelete
    delete.argtypes = [ctypes.c_void_p]
    delete(container)
    close_library(library)


def _last_error(library: ctypes.CDLL) -> str:
    """Return what `library` says of the last call that failed on this thread. Inference thread."""
    text = ctypes.c_char_p()
    # Libraries of some versions of PyTorch cannot say.
    if (tell := getattr(library, "AOTInductorGetLastError", None)) is not None:
        tell(ctypes.byref(text))
    return (text.value or b"without a reason").decode(errors="replace")


def _run_function(library: ctypes.CDLL) -> ctypes._FuncPointer:
    """Return the function that runs a batch, for one thread. Inference thread."""
    # The one for several threads asks whether the last batch has ended: no graph can record that.
    run = library.AOTInductorModelContainerRunSingleThreaded
    # The last two: the CUDA stream, and a proxy executor for operators that are not compiled.
    run.argtypes = [
        ctypes.c_void_p,
        _Handles,
        ctypes.c_size_t,
        _Handles,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return run


def _delete_function() -> ctypes._FuncPointer:
    """Return PyTorch's function that deletes the handle of a tensor. Inference thread."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    delete = ctypes.CDLL(str(path)).aoti_torch_delete_tensor_object
    delete.argtypes = [ctypes.c_void_p]
    return delete


def _new_container(library: ctypes.CDLL, device: torch.device, folder: Path) -> ctypes.c_void_p:
    """Return a container of one model for `device`; `folder` holds its kernels.

    Raises:
        ModelLoadError: the library refuses.

    Inference thread.
    """
    container = ctypes.c_void_p()
    create = library.AOTInductorModelContainerCreateWithDevice
    create.argtypes = [_Handles, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
    status = create(ctypes.byref(container), 1, str(device).encode(), str(folder).encode())
    if status != _SUCCESS:
        reason = _last_error(library)
        close_library(library)
        raise ModelLoadError(f"the compiled library refused to be set up: {reason}")
    return container


def _count_outputs(library: ctypes.CDLL, container: ctypes.c_void_p) -> int:
    """Return how many outputs the model in `container` has. Inference thread."""
    count = ctypes.c_size_t()
    library.AOTInductorModelContainerGetNumOutputs(container, ctypes.byref(count))
    return count.value
