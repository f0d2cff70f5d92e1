"""What an error of a device means.

Whether a smaller batch may run, or nothing will run any more.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from batcher.errors import DeviceLost, ModelContractError, OutOfMemory
from batcher.models.device_errors import device_error
from batcher.models.own_code import own_place
from batcher.workers.process.described_error import describe_error, rebuild_error
from tests.support.model_folders import Folders, answers, floats

ARRAY_MEMORY_ERROR: Any = vars(np._core._exceptions)["_ArrayMemoryError"]
LOST = RuntimeError("CUDA error: an illegal memory access was encountered")


class FromOnnx(Exception):
    __module__ = "onnxruntime.capi.onnxruntime_pybind11_state"


def torch_with(cuda: SimpleNamespace) -> SimpleNamespace:
    """Return what stands for PyTorch, on a device that `cuda` describes."""
    return SimpleNamespace(cuda=cuda, zeros=lambda *size, device: cuda.zeros(size))


def fails(*arguments: object) -> None:
    raise RuntimeError("CUDA error: it is gone")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        # as numpy raises it
        ARRAY_MEMORY_ERROR((1 << 60,), np.dtype("f4")),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
        FromOnnx("Exception during initialization: std::bad_alloc"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        FromOnnx("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4096"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_too_little_memory_is_told_by_class_or_words(error: BaseException) -> None:
    found = device_error(error)
    assert isinstance(found, OutOfMemory)
    assert str(error) in str(found)


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory"), KeyError("CUDA"), ModelContractError("CUDA"), SystemExit(3)],
    ids=repr,
)
def test_what_is_no_error_of_a_device_stays_what_it_is_and_no_device_is_asked(
    error: BaseException,
) -> None:
    def ask() -> bool:
        raise AssertionError("asked")

    assert device_error(error, ask) is error


def test_whether_a_device_is_lost_is_found_out_by_asking_it() -> None:
    assert device_error(LOST, lambda: True) is LOST
    found = device_error(LOST, lambda: False)
    assert isinstance(found, DeviceLost)
    assert "illegal memory access" in str(found)
    assert found.__cause__ is LOST


def test_of_an_error_for_memory_the_stack_is_let_go_of_with_what_its_frames_hold() -> None:
    with pytest.raises(MemoryError) as raised:
        raise MemoryError from ValueError()
    error = raised.value
    found = device_error(error)
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    assert (found.__cause__, found.__context__) == (None, None)


@pytest.mark.parametrize(
    ("cuda", "kind"),
    [
        (SimpleNamespace(is_initialized=lambda: False), RuntimeError),
        (SimpleNamespace(is_initialized=lambda: True, zeros=np.zeros), RuntimeError),
        (SimpleNamespace(is_initialized=lambda: True, zeros=fails), DeviceLost),
        (
            SimpleNamespace(is_initialized=lambda: True, zeros=np.zeros, synchronize=fails),
            RuntimeError,
        ),
    ],
    ids=["no device is used", "it answers", "it does not answer", "another thread captures"],
)
def test_pytorch_is_asked_whether_its_device_answers(
    monkeypatch: pytest.MonkeyPatch, cuda: Any, kind: type
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_with(cuda))
    assert type(device_error(LOST)) is kind


def test_pytorch_gives_back_what_it_keeps_when_memory_runs_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[None] = []
    cuda = SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: given.append(None))
    monkeypatch.setitem(sys.modules, "torch", torch_with(cuda))
    assert isinstance(device_error(MemoryError()), OutOfMemory)
    assert given == [None]


def test_a_device_that_can_give_nothing_back_harms_nobody_who_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: True, empty_cache=fails)
    monkeypatch.setitem(sys.modules, "torch", torch_with(cuda))
    assert isinstance(device_error(MemoryError()), OutOfMemory)


@pytest.mark.parametrize(
    ("device", "chosen"), [("cuda:3", ["cuda:3"]), ("cuda", ["cuda:0"]), ("cpu", [])]
)
def test_the_device_of_an_instance_is_the_one_its_thread_uses(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, device: str, chosen: list[str]
) -> None:
    used: list[str] = []
    monkeypatch.setattr("torch.cuda.set_device", used.append)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    source = "class Model:\n    def predict(self, inputs):\n        return inputs['x']\n"
    checked = folders.load(folders.python(source), device=device)
    assert used == chosen
    np.testing.assert_array_equal(answers(checked, x=floats())["y"], floats())


def test_an_error_of_memory_keeps_the_line_of_the_model_that_it_comes_from() -> None:
    def predict() -> None:
        raise MemoryError

    try:
        predict()
    except MemoryError as err:
        full = device_error(err)
    line = predict.__code__.co_firstlineno + 1
    assert isinstance(full, OutOfMemory)
    assert full.place == str(own_place(full)) == f"{__file__}:{line}"
    # As it comes from a child process.
    assert str(own_place(rebuild_error(describe_error(full)))) == f"{__file__}:{line}"
