"""Which operators the program in an archive may call, and which library registers them.

An operator is code of PyTorch, or of a library that is installed and imported. Most operators
compute. A few do more: `aten::from_file` maps a file into memory, `aten::save` writes one, and so
do operators of libraries that read pictures and sounds. Whatever reaches beyond tensors has to be
told where to, in a text. So an operator passes if each of its arguments of type text has a name
that stands for a way to compute, such as `reduction` or `equation`.

    target in the archive            passes
    torch.ops.aten.add.Tensor        if registered, and told by texts only how to compute
    torch.ops.higher_order.cond      if listed: control flow that an export may hold
    _operator.add, math.trunc,       if listed: arithmetic of sizes
    torch.sym_max

Anything else does not pass: PyTorch looks targets up by their names from `torch` downwards, and
finds `torch.ops.load_library` as well.
"""

from __future__ import annotations

import re

import torch

from batcher.errors import ModelLoadError

_REGISTERED = re.compile(r"torch\.ops\.([A-Za-z]\w*|_\w*)\.(\w+)\.(\w+)", re.ASCII)
_HIGHER_ORDER = re.compile(
    r"torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|map_impl|out_dtype"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|hints_wrapper|strict_mode|with_effects"
    r"|auto_functionalized(_v2)?|flex_attention|invoke_subgraph)"
)
_ARITHMETIC = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|and_|or_|lshift|rshift"
    r"|eq|ne|lt|le|gt|ge|not_|inv|invert|getitem)"
    r"|math\.(trunc|floor|ceil|sqrt|log2|exp|cos|sin|tan|tanh|pow)"
    r"|torch\._?sym_[a-z0-9_]+"
    # What `torch.vmap` and `torch.func.jvp` leave in a program.
    r"|torch\._functorch\.predispatch\.(lazy_load_decompositions|_(add|remove)_batch_dim"
    r"|_(vmap|jvp)_(in|de)crement_nesting|_(make|unpack)_dual|_unwrap_for_grad"
    r"|_(enter|exit)_dual_level)"
)
_WAYS_TO_COMPUTE = re.compile(
    r"UPLO|activation|algorithm|api_name|approximate|assert_msg|attr|binary_attr|binary_post_op"
    r"|driver|equation|indexing|interpolation|interpolation_mode|message|mode|norm|norm_type|ord"
    r"|p|pad_mode|padding|padding_mode|padding_side|post_op_algorithm|post_op_name|reduce"
    r"|reduction|rounding_mode|side|unary_algorithm|unary_attr|unary_post_op"
    r"|unary_post_op_algorithm"
)
"""Names of arguments of type text that say how an operator computes."""

UNKNOWN_BUILTIN = re.compile(r"Unknown builtin op: (\w+)::(\w+)")
"""What TorchScript says of an operator that is not registered."""


def harm(target: str) -> str:
    """Return why the operator `target` must not be called; empty if it may be. Any thread."""
    if _ARITHMETIC.fullmatch(target) or _HIGHER_ORDER.fullmatch(target):
        return ""
    schema = _schema(target)
    if schema is None:
        return f"the operator {target!r:.80}, which is none of PyTorch"
    texts = [
        argument.name
        for argument in schema.arguments
        if "str" in str(argument.type) and not _WAYS_TO_COMPUTE.fullmatch(argument.name)
    ]
    return f"the operator {target!r:.80}, which takes a text as {texts[0]!r}" if texts else ""


def check_registered(target: str) -> None:
    """Check that the operator `target` is registered, if its name is that of an operator.

    Raises:
        ModelLoadError: no library that is imported has the operator; the message says what to do.

    Any thread.
    """
    found = _REGISTERED.fullmatch(target)
    if found and not target.startswith("torch.ops.higher_order.") and _schema(target) is None:
        raise unknown_operator(found[1], found[2])


def unknown_operator(namespace: str, name: str) -> ModelLoadError:
    """Return the error of an operator that no imported library has registered. Any thread."""
    return ModelLoadError(
        f"expected operators that are registered; got {namespace}::{name}. Install the library "
        f"that has the operator, and name the library in model.yaml: `imports: [{namespace}]`"
    )


def _schema(target: str) -> torch.FunctionSchema | None:
    """Return the schema of a registered operator; None if there is no such one. Any thread."""
    found = _REGISTERED.fullmatch(target)
    if found is None:
        return None
    packet = getattr(getattr(torch.ops, found[1], None), found[2], None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return None
    operator = getattr(packet, found[3], None)
    return operator._schema if isinstance(operator, torch._ops.OpOverload) else None
