"""PyTorch's settings for the whole process, read and written without an import of PyTorch.

Nothing is imported for the sake of looking: as long as nobody has imported PyTorch, its settings
are its defaults.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from batcher.models.process_setting import Setting, of_module

_OLDER = {
    "float32_matmul_precision": "highest",
    "cublas_allow_tf32": False,
    "cudnn_allow_tf32": True,
}
"""PyTorch's older settings of the precision of float32, with their defaults."""

_PRECISIONS = {
    ("generic", "all"): "none",
    **{("cuda", each): "none" for each in ("all", "matmul")},
    **{("cuda", each): "tf32" for each in ("conv", "rnn")},
    **{("mkldnn", each): "none" for each in ("all", "matmul", "conv", "rnn")},
}
"""By backend and operation: PyTorch's own precision of float32. TF32 is less exact, and quicker."""

_REDUCED = "_reduced_precision_reduction"

_SWITCHES: dict[str, tuple[str, str, bool]] = {
    "enable_flash_sdp": ("_get_flash_sdp_enabled", "_set_sdp_use_flash", True),
    "enable_mem_efficient_sdp": (
        "_get_mem_efficient_sdp_enabled",
        "_set_sdp_use_mem_efficient",
        True,
    ),
    "enable_math_sdp": ("_get_math_sdp_enabled", "_set_sdp_use_math", True),
    "enable_cudnn_sdp": ("_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn", True),
    **{
        name: (f"_get_{core}", f"_set_{core}", default)
        for name, core, default in (
            ("fp16_bf16_reduction_math_sdp", "math_sdp_allow_fp16_bf16_reduction", False),
            (f"allow_fp16{_REDUCED}", f"cublas_allow_fp16{_REDUCED}", True),
            (f"allow_bf16{_REDUCED}", f"cublas_allow_bf16{_REDUCED}", True),
            ("allow_fp16_accumulation", "cublas_allow_fp16_accumulation", False),
            ("mkldnn.enabled", "mkldnn_enabled", True),
            ("mkldnn.deterministic", "mkldnn_deterministic", False),
            ("nnpack", "nnpack_enabled", True),
            ("fill_uninitialized_memory", "deterministic_fill_uninitialized_memory", True),
            ("set_warn_always", "warnAlways", False),
        )
    },
}
"""By its name in the log: what reads and writes a switch in `torch._C`, and PyTorch's default. Not
every version of PyTorch has all of them.
"""


_PRINTED = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}
"""PyTorch's print options, with their defaults."""


def _torch() -> Any:
    """Return the module `torch` if it has been imported, else None. Any thread."""
    return sys.modules.get("torch")


def _default_dtype() -> str:
    """Return the name of PyTorch's default dtype. Any thread."""
    torch = _torch()
    return str(torch.get_default_dtype()).partition(".")[2] if torch else "float32"


def _set_default_dtype(name: str) -> None:
    """Set PyTorch's default dtype by its name. Any thread."""
    _torch().set_default_dtype(getattr(_torch(), name))


def _deterministic() -> tuple[bool, bool]:
    """Return whether PyTorch avoids algorithms that are not deterministic, or warns of them.

    Any thread.
    """
    torch = _torch()
    if not torch:
        return False, False
    is_on = torch.are_deterministic_algorithms_enabled()
    return is_on, torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(value: tuple[bool, bool]) -> None:
    """Set what `_deterministic` returns. Any thread."""
    _torch().use_deterministic_algorithms(value[0], warn_only=value[1])


def _precisions() -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """Return how exactly PyTorch computes with float32: the older settings, and the newer ones.

    Any thread.
    """
    torch = _torch()
    if not torch:
        return _OLDER, _PRECISIONS
    older = {}
    for name in _OLDER:
        with suppress(RuntimeError):  # older and newer settings were used, and disagree
            older[name] = getattr(torch._C, f"_get_{name}")()
    read = getattr(torch._C, "_get_fp32_precision_getter", None)
    return older, {each: read(*each) for each in _PRECISIONS} if read else _PRECISIONS


def _set_precisions(value: tuple[dict[str, Any], dict[tuple[str, str], str]]) -> None:
    """Set what `_precisions` returns. Any thread."""
    torch = _torch()
    for name, setting in value[0].items():
        getattr(torch._C, f"_set_{name}")(setting)
    if hasattr(torch._C, "_set_fp32_precision_setter"):  # PyTorch before 2.9 has none
        # The older settings have changed some of these.
        for each, precision in value[1].items():
            torch._C._set_fp32_precision_setter(*each, precision)


def _switches() -> dict[str, bool]:
    """Return PyTorch's switches by their names in the log. Any thread."""
    core = getattr(_torch(), "_C", None)
    switches = {}
    for name, (getter, _, default) in _SWITCHES.items():
        value = getattr(core, getter)() if hasattr(core, getter) else default
        # Newer versions tell with some switches whether a sum may be split, too.
        switches[name] = all(value) if isinstance(value, tuple) else value
    return switches


def _set_switches(before: dict[str, bool]) -> None:
    """Set what `_switches` returns. Any thread."""
    now = _switches()
    for name, (_, setter, _) in _SWITCHES.items():
        if now[name] != before[name]:
            getattr(_torch()._C, setter)(before[name])


def _own_engine() -> str:
    """Return the engine for quantised operators that PyTorch chooses by itself. Any thread."""
    engines = _torch().backends.quantized.supported_engines
    return next((each for each in ("x86", "onednn") if each in engines), "none")


def _quantised() -> str:
    """Return the engine for quantised operators; nothing for PyTorch's own choice. Any thread."""
    torch = _torch()
    engine = torch.backends.quantized.engine if torch else ""
    return "" if not torch or engine == _own_engine() else str(engine)


def _set_quantised(engine: str) -> None:
    """Set what `_quantised` returns. Any thread."""
    _torch().backends.quantized.engine = engine or _own_engine()


def _printed() -> dict[str, Any]:
    """Return PyTorch's print options. Any thread."""
    options = getattr(sys.modules.get("torch._tensor_str"), "PRINT_OPTS", None)
    return {name: getattr(options, name, default) for name, default in _PRINTED.items()}


def _set_printed(before: dict[str, Any]) -> None:
    """Set what `_printed` returns. Any thread."""
    _torch().set_printoptions(**before)
    # `None`, with which PyTorch chooses by the numbers, would here leave the option as it is.
    sys.modules["torch._tensor_str"].PRINT_OPTS.sci_mode = before["sci_mode"]


def _anomaly() -> bool:
    """Return whether PyTorch looks for anomalies of gradients. Any thread."""
    torch = _torch()
    return bool(torch.is_anomaly_enabled()) if torch else False


def _set_anomaly(is_on: bool) -> None:
    """Set what `_anomaly` returns. Any thread."""
    _torch().autograd.set_detect_anomaly(is_on)


def _gradients() -> bool:
    """Return whether PyTorch records gradients on this thread. Any thread."""
    torch = _torch()
    return bool(torch.is_grad_enabled()) if torch else True


def _set_gradients(is_on: bool) -> None:
    """Set what `_gradients` returns. Any thread."""
    _torch().set_grad_enabled(is_on)


def _torch_random() -> bytes:
    """Return the state of PyTorch's generator; nothing if PyTorch is not imported. Any thread."""
    torch = _torch()
    return torch.get_rng_state().numpy().tobytes() if torch else b""


def _set_torch_random(state: bytes) -> None:
    """Set the state of PyTorch's generator; of one that had none before, to chance. Any thread."""
    torch = _torch()
    if state:
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    else:
        torch.seed()


TORCH_SETTINGS = (
    Setting("PyTorch's default dtype", _default_dtype, _set_default_dtype),
    Setting("PyTorch's deterministic algorithms", _deterministic, _set_deterministic),
    Setting("PyTorch's precision of float32 (TF32)", _precisions, _set_precisions),
    of_module("torch.backends.cudnn", "benchmark", False),
    of_module("torch.backends.cudnn", "deterministic", False),
    of_module("torch.backends.cudnn", "enabled", True),
    Setting("PyTorch's switches", _switches, _set_switches),
    Setting("PyTorch's engine for quantised operators", _quantised, _set_quantised),
    Setting("PyTorch's detection of anomalies", _anomaly, _set_anomaly),
    Setting("PyTorch's print options", _printed, _set_printed),
    of_module("torch.hub", "_hub_dir", None),
    # Of this thread alone, and each batch sets it anyhow.
    Setting("", _gradients, _set_gradients),
    Setting("", _torch_random, _set_torch_random),
)
"""All of them; the defaults stand in the functions that read."""
