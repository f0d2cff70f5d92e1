"""Where batches are put together, and the way to CUDA and back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from batcher.core.spec import Array, TensorSpec
from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.output_arrays import on_host, output_arrays, plain_array
from batcher.models.protocol import FreshMemory, PartialOutputs
from batcher.models.pytorch import module, python_class, tensors
from batcher.models.pytorch.comparing import comparison_inputs
from batcher.models.pytorch.staging import PinnedStaging
from batcher.models.pytorch.tensors import to_host, to_tensor
from batcher.models.result_names import named_outputs
from tests.support.fake_gpu import FakeGpu, failing_copies
from tests.support.fake_gpu import gpu as gpu
from tests.support.model_folders import Folders, answers, floats
from tests.support.models import model_spec, tensor

FLOAT = np.dtype("<f4")
CPU = torch.device("cpu")
needs_cuda = pytest.mark.cuda
NETWORK = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first, last = torch.nn.Linear(4, 64), torch.nn.Linear(64, 4)
            self.net = torch.nn.Sequential(first, torch.nn.ReLU(), last)

    def forward(self, x):
        return self.net(x)
"""
ECHO = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
TWO = "[{name: y, dtype: FP32, shape: [4]}, {name: z, dtype: FP32, shape: [4]}]"


def read(value: object, spec: TensorSpec | None = None) -> Array:
    """Return what a model returned for the output `spec` as an array."""
    return plain_array(on_host(to_host(value), spec, "place"), "place")


def test_on_the_cpu_every_batch_gets_memory_of_its_own() -> None:
    staging = FreshMemory()
    first, second = (staging.allocate("x", (2, 3), FLOAT) for _ in range(2))
    assert not np.shares_memory(first, second)
    assert (first.shape, first.dtype, first.flags.writeable, first.flags.c_contiguous) == (
        (2, 3),
        FLOAT,
        True,
        True,
    )


def test_on_the_cpu_a_tensor_is_the_array_itself() -> None:
    array = floats()
    assert np.shares_memory(to_tensor(array, tensor(), CPU).numpy(), array)
    assert np.shares_memory(read(torch.from_numpy(array)), array)


def test_bf16_is_viewed_anew_and_not_converted() -> None:
    bits = np.array([[0x3F80, 0xC040]], "<u2")
    found = to_tensor(bits.copy(), tensor("x", "BF16", (2,)), CPU)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[1.0, -3.0]]
    back = read(found, tensor("y", "BF16", (2,)))
    assert back.dtype == np.dtype("<u2")
    np.testing.assert_array_equal(back, bits)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([1 + 2j, 3 - 4j]).conj().imag, [-2, 4]),
        (torch.ones(2, requires_grad=True) * 3, [3, 3]),
        (torch.nn.Parameter(torch.ones(2)), [1, 1]),
        (torch.tensor([1.5, 2], dtype=torch.bfloat16), [1.5, 2]),
        (torch.tensor([1.5, 2]).to(torch.float8_e4m3fn), [1.5, 2]),
        (torch._efficientzerotensor((2,)), [0, 0]),
    ],
    ids=["negative bit", "gradients", "a parameter", "BF16", "8 bits", "zeros alone"],
)
def test_tensors_that_numpy_cannot_read_are_read(value: torch.Tensor, expected: object) -> None:
    assert read(value, tensor("y", "FP32", ())).tolist() == expected


def test_a_conjugate_bit_is_resolved() -> None:
    assert read(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: torch.eye(2).to_sparse(), "got a sparse_coo one: return `.to_dense()` of it"),
        (lambda: torch.eye(2).to_sparse_csr(), "got a sparse_csr one: return `.to_dense()`"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
            "got a quantised one: return `.dequantize()` of it",
        ),
    ],
    ids=["sparse", "sparse rows", "quantised"],
)
def test_tensors_without_plain_numbers_are_refused_with_what_to_write(
    make: Callable[[], torch.Tensor], complaint: str
) -> None:
    with pytest.raises(
        ModelContractError, match=re.escape(f"place: expected a dense tensor; {complaint}")
    ):
        read(make())


def test_a_sparse_output_of_a_model_on_a_gpu_is_refused_with_what_to_write(
    folders: Folders, gpu: FakeGpu
) -> None:
    source = ECHO.replace("return x", "return x.to_sparse()")
    with pytest.raises(ModelLoadError, match=re.escape("return `.to_dense()` of it")):
        folders.load(folders.python(source))


def test_tensors_without_values_are_refused() -> None:
    with FakeTensorMode():
        fake = torch.ones(2)
    for value, got in ((fake, "a FakeTensor"), (torch.ones(2, device="meta"), "a meta one")):
        with pytest.raises(
            ModelContractError, match=f"place: expected a tensor with values; got {got}, which"
        ):
            read(value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_a_nested_tensor_is_a_list_of_rows(layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)], layout=layout)
    assert [row.tolist() for row in on_host(nested, None, "y")] == [[1, 1], [0, 0, 0]]


def test_a_masked_array_is_refused_unless_nothing_is_masked() -> None:
    assert read(np.ma.array([1.0, 2.0])).tolist() == [1, 2]
    with pytest.raises(ModelContractError, match="got a masked one"):
        read(np.ma.array([1.0, 2.0], mask=[0, 1]))


def test_outputs_that_were_not_declared_are_neither_copied_nor_converted() -> None:
    sparse = torch.eye(2).to_sparse()
    values, left_out = named_outputs({"y": torch.ones(2, 4), "hidden": sparse}, model_spec())
    arrays = output_arrays(values, model_spec(), left_out)
    assert arrays.keys() == {"y"}
    assert isinstance(arrays, PartialOutputs)
    assert arrays.left_out == ("hidden",)


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0).reshape(4, 3)[:, ::2],
        np.asfortranarray(np.ones((2, 3))),
        torch.ones(3, requires_grad=True),
        torch.arange(6).to(torch.bfloat16).reshape(2, 3).T,
        torch.tensor(1.5),
        [[1.0, 2.0], [3.0, 4.0]],
    ],
    ids=[
        "transposed",
        "strided",
        "fortran",
        "with gradients",
        "bf16 transposed",
        "scalar",
        "lists",
    ],
)
def test_whatever_a_model_answers_becomes_a_contiguous_array_of_the_same_values(
    value: object,
) -> None:
    found = read(value)
    assert found.flags.c_contiguous
    expected = (
        value.detach().float().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    )
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape


def test_pinned_memory_of_answers_is_none_that_pytorch_asks_the_device_about_when_it_is_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []

    def pinned(nbytes: int) -> torch.Tensor:
        found.append(torch.empty(nbytes, dtype=torch.uint8))
        return found[-1]

    monkeypatch.setattr(tensors, "pinned", pinned)
    memory = tensors._home_of(torch.empty(12, dtype=torch.uint8))
    (block,) = found
    assert memory.nbytes == 12
    # PyTorch finds a block by its first address, and by the storage that it has made itself.
    assert memory.untyped_storage().data_ptr() > block.data_ptr()
    memory.fill_(7)
    assert block[-12:].tolist() == [7] * 12


@pytest.mark.parametrize(
    "value",
    [
        torch.empty(0, 3),
        torch.empty(2, 0, dtype=torch.float64),
        torch.tensor(1.5),
        torch.tensor([True, False, True]),
        torch.arange(6).to(torch.bfloat16).reshape(2, 3).T,
        torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128),
        torch.tensor([1.5, 2]).to(torch.float8_e4m3fn),
        torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.arange(3).expand(2, 3),
        torch.arange(12)[::5],
    ],
    ids=lambda value: f"{value.dtype} {list(value.shape)}",
)
def test_values_of_every_kind_and_order_come_home_contiguous(
    value: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "pinned", lambda nbytes: torch.empty(nbytes, dtype=torch.uint8))
    home = tensors._home_of(value).copy_(value, non_blocking=True)
    assert home.is_contiguous()
    assert (home.shape, home.dtype) == (value.shape, value.dtype)
    assert home.tolist() == value.tolist()


def test_pinned_memory_is_the_hosts_whatever_device_a_model_has_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = torch.empty
    with torch.device("meta"):
        assert torch.empty(1).is_meta
        monkeypatch.setattr(torch, "empty", lambda *args, pin_memory, **more: empty(*args, **more))
        assert tensors.pinned(4).is_cpu
        (compared,) = comparison_inputs(model_spec(), 2, CPU)
    assert compared.is_cpu


def test_outputs_whose_copies_fail_half_way_are_waited_for_before_their_memory_is_freed(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ECHO.replace("return x", "return x, x + 1")
    checked = folders.load(folders.python(source, outputs=TWO))
    monkeypatch.setattr(module, "to_host", failing_copies(gpu))
    with pytest.raises(RuntimeError, match="pinned"):
        answers(checked, x=floats())
    assert gpu.events[:3] == ["copy begins", "copies fail", "wait for stream 1"]


def test_outputs_of_a_class_whose_copies_fail_half_way_are_waited_for_as_well(
    folders: Folders, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "class Model:\n    def predict(self, inputs):\n"
    source += '        x = torch.from_numpy(inputs["x"])\n        return x, x + 1\n'
    checked = folders.load(folders.python(source, outputs=TWO))
    monkeypatch.setattr(python_class, "to_host", failing_copies(gpu))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(python_class, "_wait_for_copies", lambda values: gpu.events.append("wait"))
    with pytest.raises(RuntimeError, match="pinned"):
        answers(checked, x=floats())
    assert gpu.events[:3] == ["copy begins", "copies fail", "wait"]


@needs_cuda
def test_answers_are_freed_after_the_loss_of_the_device_without_the_end_of_the_process() -> None:
    program = """
import os, torch
from batcher.models.pytorch.tensors import to_host
answer = to_host(torch.ones(4, device="cuda"))
torch.cuda.synchronize()
torch.zeros(4, device="cuda")[torch.full((8,), 1_000, device="cuda")]
try:
    torch.cuda.synchronize()
except RuntimeError:
    del answer
    print("lives", flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    # builds of PyTorch may print what has failed in a kernel there, too
    assert (done.returncode, "lives" in done.stdout) == (0, True), done.stderr[-400:]


@needs_cuda
def test_pinned_buffers_are_pinned_and_used_again() -> None:
    staging = PinnedStaging()
    large = staging.allocate("x", (8, 3), FLOAT)
    small = staging.allocate("x", (2, 3), FLOAT)
    assert torch.from_numpy(large).is_pinned()
    assert small.ctypes.data == large.ctypes.data
    assert (small.shape, small.dtype, small.flags.c_contiguous, small.flags.writeable) == (
        (2, 3),
        FLOAT,
        True,
        True,
    )


@needs_cuda
def test_a_pinned_buffer_grows_to_the_largest_batch_and_stays() -> None:
    staging = PinnedStaging()
    staging.allocate("x", (2, 3), FLOAT)
    large = staging.allocate("x", (8, 3), FLOAT)
    assert staging.allocate("x", (8, 3), FLOAT).ctypes.data == large.ctypes.data


@needs_cuda
def test_every_input_has_a_pinned_buffer_of_its_own() -> None:
    staging = PinnedStaging()
    assert not np.shares_memory(
        staging.allocate("x", (8, 3), FLOAT), staging.allocate("y", (8, 3), FLOAT)
    )


@needs_cuda
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "<u2", "?"])
def test_a_pinned_buffer_holds_any_dtype(dtype: str) -> None:
    staging = PinnedStaging()
    staging.allocate("x", (3, 5), np.dtype("<u1"))
    array = staging.allocate("x", (3, 5), np.dtype(dtype))
    array[...] = 1
    assert (array == 1).all()


def on(device: str, folders: Folders, source: str, rows: Array, name: str) -> Array:
    return answers(
        folders.load(folders.python(source, name=name), device=device, max_batch_size=64), x=rows
    )["y"]


@needs_cuda
def test_a_module_gives_the_same_answers_on_cuda_as_on_the_cpu(folders: Folders) -> None:
    rows = np.random.default_rng(0).standard_normal((64, 4)).astype("f4")
    found = on("cuda:0", folders, NETWORK, rows, "cuda")
    np.testing.assert_allclose(found, on("cpu", folders, NETWORK, rows, "cpu"), atol=1e-4)


@needs_cuda
def test_batches_that_follow_each_other_through_one_pinned_buffer_do_not_mix(
    folders: Folders,
) -> None:
    checked = folders.load(folders.python(ECHO), device="cuda:0", max_batch_size=1024)
    sent = [np.full((1024, 4), value, "<f4") for value in range(20)]
    found = [answers(checked, x=rows)["y"] for rows in sent]
    for rows, answer in zip(sent, found, strict=True):
        np.testing.assert_array_equal(answer, rows)


@needs_cuda
def test_a_module_on_cuda_runs_on_a_stream_of_its_own(folders: Folders) -> None:
    source = "STREAMS = []\n\n" + ECHO.replace(
        "return x", "STREAMS.append(torch.cuda.current_stream())\n        return x"
    )
    checked = folders.load(folders.python(source), device="cuda:0")
    answers(checked, x=floats())
    # the module's own list
    streams = checked.model.make.forward.__globals__["STREAMS"]  # type: ignore[attr-defined]
    assert torch.cuda.default_stream() not in streams
    assert len(set(streams)) == 1


@needs_cuda
def test_bf16_goes_to_cuda_and_back_as_16_bit_integers(folders: Folders) -> None:
    tensors = "[{{name: {}, dtype: BF16, shape: [2]}}]"
    definition = folders.python(ECHO, inputs=tensors.format("x"), outputs=tensors.format("y"))
    bits = np.array([[0x3F80, 0xC040]], "<u2")
    np.testing.assert_array_equal(
        answers(folders.load(definition, device="cuda:0"), x=bits)["y"], bits
    )


@needs_cuda
def test_an_object_that_answers_with_tensors_on_cuda_is_waited_for(folders: Folders) -> None:
    source = (
        'class Model:\n    def predict(self, inputs):\n        return {"y": '
        'torch.from_numpy(inputs["x"]).cuda() * 2}\n'
    )
    checked = folders.load(folders.python(source), device="cuda:0")
    np.testing.assert_array_equal(answers(checked, x=floats())["y"], floats() * 2)
