"""The models that hostile clients ask, one for each form that inputs and answers can have."""

from __future__ import annotations

from pathlib import Path

from benchmarks.hostile_kinds.kind import Target
from benchmarks.hostile_kinds.wire import exchange, request

SETTINGS = ("grpc_port=0",)
"""A server at its defaults, and gRPC beside HTTP."""

ANSWER_VALUES = 1 << 18
"""Values in one row of `large`: 1 MiB, so that the 64 rows of one batch are 64 MiB."""

VECTOR_NUMBERS = 1 << 10
"""Numbers of a vector of `embedder`: 2,048 texts have 8 MiB of them."""

ANSWER_WORDS = 1 << 16
"""Texts in one row of `words`: 64 rows are four million."""

_COUNTING = """
import numpy as np

class Model:
    def predict(self, inputs):
        rows = len(next(iter(inputs.values())))
        return {"y": np.zeros((rows, 1), "f4")}
"""

_ECHO = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""

_LARGE = f"""
import numpy as np

VALUES = np.random.default_rng(0).random({ANSWER_VALUES}, "f4")

class Model:
    def predict(self, inputs):
        # Not `np.tile`, which keeps the interpreter lock: that would be the model's doing.
        y = np.empty((len(inputs["x"]), {ANSWER_VALUES}), "f4")
        y[:] = VALUES
        return {{"y": y}}
"""

_WORDS = f"""
import numpy as np

WORDS = np.full({ANSWER_WORDS}, b"word", object)

class Model:
    def predict(self, inputs):
        # A view: to fill an array of so many objects is a call of numpy's that keeps the lock.
        return {{"y": np.broadcast_to(WORDS, (len(inputs["x"]), {ANSWER_WORDS}))}}
"""

_EMBEDDER = f"""
import numpy as np

VECTOR = np.random.default_rng(0).random({VECTOR_NUMBERS}, "f4")

class Model:
    def predict(self, inputs):
        y = np.empty((len(inputs["text"]), {VECTOR_NUMBERS}), "f4")
        y[:] = VECTOR
        return {{"y": y}}
"""

_Y = "[{name: y, dtype: FP32, shape: [1]}]"

MODELS = {
    "probe": (
        _ECHO,
        "[{name: x, dtype: FP32, shape: [64]}]",
        "[{name: y, dtype: FP32, shape: [64]}]",
    ),
    "floats": (_COUNTING, "[{name: x, dtype: FP32, shape: [-1]}]", _Y),
    "texts": (_COUNTING, "[{name: x, dtype: BYTES, shape: [-1]}]", _Y),
    "table": (
        _COUNTING,
        "[{name: a, dtype: FP32, shape: []}, {name: b, dtype: INT64, shape: []},"
        " {name: c, dtype: BYTES, shape: []}, {name: d, dtype: BOOL, shape: []}]",
        _Y,
    ),
    "pictures": (
        _COUNTING,
        "[{name: x, dtype: FP32, shape: [3, 64, 64], image: {mode: rgb}}]",
        _Y,
    ),
    "scenes": (
        _COUNTING,
        "[{name: x, dtype: FP32, shape: [3, -1, -1], image: {mode: rgb}}]",
        _Y,
    ),
    "large": (
        _LARGE,
        "[{name: x, dtype: FP32, shape: [1]}]",
        f"[{{name: y, dtype: FP32, shape: [{ANSWER_VALUES}]}}]",
    ),
    "words": (
        _WORDS,
        "[{name: x, dtype: FP32, shape: [1]}]",
        f"[{{name: y, dtype: BYTES, shape: [{ANSWER_WORDS}]}}]",
    ),
    "embedder": (
        _EMBEDDER,
        "[{name: text, dtype: BYTES, shape: []},"
        " {name: ids, dtype: INT64, shape: [-1], optional: true}]",
        f"[{{name: y, dtype: FP32, shape: [{VECTOR_NUMBERS}]}}]",
    ),
}
"""Name to source, inputs and outputs. `probe` is asked by nobody but the probes."""


def write_models(repository: Path, *names: str) -> None:
    """Write the MODELS with these names, or all, into `repository`."""
    for name in names or MODELS:
        source, inputs, outputs = MODELS[name]
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "code.py").write_text(source)
        (folder / "model.yaml").write_text(
            f"format: python\nclass: code:Model\ninputs: {inputs}\noutputs: {outputs}\n"
        )


def warm_up(target: Target) -> None:
    """Ask for what a server makes once, at first use: its child for codecs, libraries, caches.

    Each format is asked for with a body above 256 KiB, beyond which work leaves the loop.
    """
    rows = 1 << 17
    bodies = (
        ("application/json", b'{"inputs":{"x":[[' + b"0.5," * rows + b"1]]}}"),
        ("text/csv", b"0.5," * rows + b"1\n"),
        ("application/msgpack", b"\x81\xa6inputs\x81\xa1x\x91\xdd\0\2\0\0" + bytes(rows)),
        ("application/octet-stream", bytes(4 * rows)),
    )
    for media_type, body in bodies:
        exchange(target, [request("/models/floats/predict", body, media_type)])
        exchange(target, [request("/models/floats/predict", body, media_type, coding="gzip")])
    for accept in ("application/json", "text/csv", "application/msgpack"):
        asked = request("/models/large/predict", bytes(4), fields={"Accept": accept})
        exchange(target, [asked])
