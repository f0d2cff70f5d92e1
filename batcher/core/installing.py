"""How a part that is missing is installed: the one place where the server names itself for pip.

The package is imported as `batcher`, and that name belongs to somebody else on PyPI. So no advice
may have pip install what has that name.
"""

from __future__ import annotations

DISTRIBUTION = "batcher-inference"
"""The name under which pip knows the server."""

EXTRAS = {
    "onnx": "onnxruntime",
    "grpc": "grpc",
    "zeromq": "zmq",
    "stores": "obstore",
    "parquet": "pyarrow",
    "redis": "txredisapi",
    "ray": "ray",
    "gpu": "pynvml",
}
"""Extras that the server can do without, each with a module that it brings."""

FORMAT_LIBRARIES = {
    "onnxruntime": "onnx",
    "sklearn": "sklearn",
    "joblib": "sklearn",
    "pandas": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "keras": "keras",
}
"""The libraries that read models, each with the extra that brings it."""


def how_to_install(extra: str) -> str:
    """Return the command that installs `extra`, of an installation and of a checkout."""
    return (
        f"`pip install '{DISTRIBUTION}[{extra}]'`, or in a checkout `pip install -e '.[{extra}]' "
        "-c constraints.txt`"
    )
