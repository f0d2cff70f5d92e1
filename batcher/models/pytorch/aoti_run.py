"""Running an AOTInductor package without the interpreter lock.

PyTorch's own loader keeps the lock while the model runs: a batch of 50 ms would stop the event loop
for 50 ms. The compiled library has an interface in C, and a call through ctypes lets go of the lock
for as long as it takes.
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

_get_pointer, _new_capsule = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_new_capsule.restype, _new_capsule.argtypes = (
    ctypes.py_object,
    [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
)


class CompiledModule:
    """The model in a package, called with its inputs in order; gives its outputs as a list."""

    def __init__(self, package: Path, device: torch.device) -> None:
        """Load the library in `package` for `device`. Inference thread.

        Raises:
            ModelLoadError: it cannot be loaded; the message says why.
        """
        self._device = device
        self._folder = tempfile.TemporaryDirectory(
            prefix="batcher-aoti-"
        )  # kernels for CUDA are read from it later
        with ZipFile(package) as archive:
            archive.extractall(self._folder.name)
        libraries = list(Path(self._folder.name).rglob("*.so"))
        if len(libraries) != 1:
            raise ModelLoadError(f"expected a package with one library; got {len(libraries)}")
        library = ctypes.CDLL(str(libraries[0]))
        self._run = library.AOTInductorModelContainerRun
        self._run.argtypes = [
            ctypes.c_void_p,
            _Handles,
            ctypes.c_size_t,
            _Handles,
            ctypes.c_size_t,
            *[ctypes.c_void_p] * 2,
        ]
        self._delete = ctypes.CDLL(
            str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")
        ).aoti_torch_delete_tensor_object
        self._delete.argtypes = [ctypes.c_void_p]
        self._container = ctypes.c_void_p()
        create = library.AOTInductorModelContainerCreateWithDevice
        create.argtypes = [_Handles, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
        folder = str(libraries[0].parent).encode()
        if create(ctypes.byref(self._container), 1, str(device).encode(), folder) != _SUCCESS:
            raise ModelLoadError("the compiled library refused to be set up")
        count = ctypes.c_size_t()
        library.AOTInductorModelContainerGetNumOutputs(self._container, ctypes.byref(count))
        self._outputs = count.value

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Run one batch. Inference thread.

        Raises:
            RuntimeError: the library failed; it has told why on standard error.
        """
        # The library takes the handles of the inputs over, and leaves us those of the outputs.
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(inputs))
        given = (ctypes.c_void_p * len(inputs))(
            *[_get_pointer(capsule, None) for capsule in capsules]
        )
        made = (ctypes.c_void_p * self._outputs)()
        stream = (
            torch.cuda.current_stream(self._device).cuda_stream
            if self._device.type == "cuda"
            else None
        )
        if (
            self._run(self._container, given, len(inputs), made, self._outputs, stream, None)
            != _SUCCESS
        ):
            raise RuntimeError(
                "the compiled model failed on this batch; what it said stands on standard error"
            )
        try:
            steal = (
                torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr
            )  # a second reference, in spite of its name
            return [steal(_new_capsule(handle, None, None)) for handle in made]
        finally:
            for handle in made:
                self._delete(handle)
