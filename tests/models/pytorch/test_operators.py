"""Which operators an archive that is not trusted may call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from batcher.errors import ModelLoadError
from batcher.models.pytorch.operators import check_registered, harm


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    own = torch.library.Library("batchertest", "FRAGMENT")
    yield own
    own._destroy()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.add.Tensor",
        "torch.ops.aten.nonzero.default",
        "torch.ops.aten.einsum.default",
        "torch.ops.aten.div.Tensor_mode",
        "torch.ops.aten._assert_scalar.default",
        "torch.ops.aten.gelu.default",
        "torch.ops.aten.scatter_reduce.two",
        "torch.ops.quantized.linear.default",
        "torch.ops.higher_order.cond",
        "_operator.getitem",
        "math.trunc",
        "torch.sym_max",
        "torch._functorch.predispatch._add_batch_dim",
    ],
)
def test_operators_that_compute_are_harmless(target: str) -> None:
    assert harm(target) == ""


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("torch.ops.load_library", "none of PyTorch"),
        ("torch.ops.import_module", "none of PyTorch"),
        ("torch.ops.load_library.x.y", "none of PyTorch"),
        ("torch.ops.aten.add.__class__", "none of PyTorch"),
        ("torch.ops.aten.__class__.__init__", "none of PyTorch"),
        ("torch.ops.__class__.__init__.__globals__", "none of PyTorch"),
        ("torch.ops.aten.add", "none of PyTorch"),
        ("torch.load", "none of PyTorch"),
        ("torch.sym_float.__globals__", "none of PyTorch"),
        ("_operator.attrgetter", "none of PyTorch"),
        ("_operator.methodcaller", "none of PyTorch"),
        ("_operator.call", "none of PyTorch"),
        ("math.factorial", "none of PyTorch"),
        ("os.system", "none of PyTorch"),
        ("#ext:os.system", "none of PyTorch"),
        ("torch.ops.higher_order.call_torchbind", "none of PyTorch"),
        ("torch.ops.aten.from_file.default", "a text as 'filename'"),
        ("torch.ops.aten.save.default", "a text as 'filename'"),
    ],
)
def test_whatever_reaches_beyond_tensors_is_named(target: str, what: str) -> None:
    assert what in harm(target)


def test_operators_of_libraries_are_harmless_but_for_those_that_are_told_a_place(
    library: torch.library.Library,
) -> None:
    library.define("scale(Tensor x, float by, str reduction='mean') -> Tensor")
    library.define("read(str path) -> Tensor")
    assert harm("torch.ops.batchertest.scale.default") == ""
    assert "a text as 'path'" in harm("torch.ops.batchertest.read.default")


def test_an_operator_that_no_library_has_registered_is_named_with_what_to_do() -> None:
    with pytest.raises(ModelLoadError, match=r"vision9::nms.*model\.yaml: `imports: \[vision9\]`"):
        check_registered("torch.ops.vision9.nms.default")
    check_registered("torch.ops.aten.add.Tensor")
    check_registered("_operator.add")
