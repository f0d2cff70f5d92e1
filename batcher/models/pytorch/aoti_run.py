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
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import torch

from batcher.errors import ModelLoadError

_SUCCESS = 0
_Handles = ctypes.POINTER(ctypes.c_void_p)

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class CompiledModule:
    """The model in a package. Called with its inputs in order; returns its outputs in order."""

    def __init__(self, package: Path, device: torch.device) -> None:
        """Load the library in `package` for `device`.

        Raises:
            ModelLoadError: the library cannot be loaded; the message says why.

        Inference thread.
        """
        self._device = device
        # Kept as long as the module: kernels for CUDA are read from the folder later.
        self._folder = tempfile.TemporaryDirectory(prefix="batcher-aoti-")
        with ZipFile(package) as archive:
            archive.extractall(self._folder.name)
        paths = list(Path(self._folder.name).rglob("*.so"))
        if len(paths) != 1:
            raise ModelLoadError(f"expected a package with one library; got {len(paths)}")
        library = ctypes.CDLL(str(paths[0]))
        self._run = _run_function(library)
        self._delete = _delete_function()
        self._container = _new_container(library, device, paths[0].parent)
        self._output_count = _count_outputs(library, self._container)

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Run one batch.

        Raises:
            RuntimeError: the library failed, and wrote the reason to standard error.

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
            raise RuntimeError(
                "the compiled model failed on this batch; what it said stands on standard error"
            )
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


def _run_function(library: ctypes.CDLL) -> ctypes._FuncPointer:
    """Return the function that runs a batch. Inference thread."""
    run = library.AOTInductorModelContainerRun
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
        raise ModelLoadError("the compiled library refused to be set up")
    return container


def _count_outputs(library: ctypes.CDLL, container: ctypes.c_void_p) -> int:
    """Return how many outputs the model in `container` has. Inference thread."""
    count = ctypes.c_size_t()
    library.AOTInductorModelContainerGetNumOutputs(container, ctypes.byref(count))
    return count.value
