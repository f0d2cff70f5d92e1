"""Which kinds of models the server takes, in which format: one row for each kind.

`docs/models.md` shows the rows as a table. tests/integration/kinds holds a server against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from batcher.core.spec import Array
from tests.support import kind_sources as sources

FORMATS = ("python class", "nn.Module", "torchscript", "export", "aoti", "onnx")
"""The columns. `aoti` is a model of format export with `compile: aoti`."""

WORKERS = ("thread", "process")

Arrays = dict[str, Array]


class Cell(NamedTuple):
    """What happens to a kind of model in one format.

    Attributes:
        text: the cell of the table.
        refusal: words of the error at load; empty if the model is served.
        uncompiled: words of the log line if a model is served, but not compiled.
        exists: whether there are such models.
    """

    text: str
    refusal: str = ""
    uncompiled: str = ""
    exists: bool = True


SERVED = Cell("yes")
NONE = Cell("none", exists=False)
NO_HOOKS = Cell("no hooks", exists=False)
NO_TEXT = Cell("refused", "expected a dtype that PyTorch has; got BYTES")


class Kind(NamedTuple):
    """One kind of model.

    Attributes:
        name: the kind, in words.
        inputs: `inputs` of model.yaml.
        outputs: `outputs` of model.yaml.
        predictor: the class with `predict`.
        module: the `torch.nn.Module`; None if there is none.
        graph: the ONNX graph as text: inputs, outputs and nodes.
        requests: inputs that clients send.
        answer: returns the right outputs for the inputs of a request.
        cells: what happens by format, where the model is not simply served.
        free: the input whose second axis is free.
        by_keyword: whether `forward` takes its inputs by keyword.
        gradients: whether model.yaml says so where PyTorch runs the model as it stands.
        by_function: whether a function makes the model.
    """

    name: str
    inputs: str
    outputs: str
    predictor: type
    module: type | None
    graph: str
    requests: list[Arrays]
    answer: Callable[[Mapping[str, Array]], Mapping[str, Any]]
    cells: Mapping[str, Cell] = {}
    free: str = ""
    by_keyword: bool = False
    gradients: bool = False
    by_function: bool = False

    def cell(self, format_name: str) -> Cell:
        """Return what happens in one of FORMATS."""
        return self.cells.get(format_name, SERVED)


def tensors(*each: tuple[str, str, str]) -> str:
    """Return tensors of model.yaml, each by name, dtype and shape."""
    return f"[{', '.join(f'{{name: {n}, dtype: {d}, shape: {s}}}' for n, d, s in each)}]"


def requests(name: str, *rows: list[Any], dtype: str = "f4") -> list[Arrays]:
    """Return a request of each of `rows`, and one of two rows."""
    arrays = [np.array([row], dtype) for row in rows]
    return [{name: array} for array in (*arrays, np.concatenate(arrays[:2]))]


def _unequal(inputs: Mapping[str, Array]) -> Mapping[str, Any]:
    return {"y": [np.full((n, 2), n, np.float32) for n in inputs["count"].tolist()]}


X = tensors(("x", "FP32", "[2]"))
Y = tensors(("y", "FP32", "[2]"))
FLOATS = requests("x", [1, 2], [3, 4], [-5, 6.5])
TWO = tensors(("double", "FP32", "[2]"), ("total", "FP32", "[]"))
TWO_GRAPH = (
    "(float[N,2] x) => (float[N,2] double, float[N] total) { two = Constant<value_float=2.0>()\n"
    "axis = Constant<value_ints=[1]>()\ndouble = Mul(x, two)\n"
    "total = ReduceSum<keepdims=0>(x, axis) }"
)


def _two(inputs: Mapping[str, Array]) -> Mapping[str, Any]:
    return {"double": inputs["x"] * 2, "total": inputs["x"].sum(1)}


KINDS = [
    Kind(
        "one output",
        X,
        Y,
        sources.PredictOne,
        sources.ModuleOne,
        "(float[N,2] x) => (float[N,2] y) { two = Constant<value_float=2.0>()\n"
        "one = Constant<value_float=1.0>()\ntwice = Mul(x, two)\ny = Add(twice, one) }",
        FLOATS,
        lambda inputs: {"y": inputs["x"] * 2 + 1},
    ),
    Kind(
        "two outputs in a tuple",
        X,
        TWO,
        sources.PredictPair,
        sources.ModulePair,
        TWO_GRAPH,
        FLOATS,
        _two,
    ),
    Kind(
        "outputs in a dict, in another order",
        X,
        TWO,
        sources.PredictNamed,
        sources.ModuleNamed,
        TWO_GRAPH.replace(
            "(float[N,2] double, float[N] total)", "(float[N] total, float[N,2] double)"
        ),
        FLOATS,
        _two,
    ),
    Kind(
        "text in, text out",
        tensors(("text", "BYTES", "[]")),
        tensors(("y", "BYTES", "[]")),
        sources.PredictText,
        sources.ModuleOne,
        "(string[N] text) => (string[N] y) "
        '{ mark = Constant<value_string="!">()\ny = StringConcat(text, mark) }',
        [{"text": np.array([b"a", "ä".encode()], object)}, {"text": np.array([b""], object)}],
        lambda inputs: {"y": [text + b"!" for text in inputs["text"]]},
        dict.fromkeys(("nn.Module", "torchscript", "export", "aoti"), NO_TEXT),
    ),
    Kind(
        "uint8",
        tensors(("x", "UINT8", "[2]")),
        tensors(("y", "UINT8", "[2]")),
        sources.PredictUint8,
        sources.ModuleUint8,
        "(uint8[N,2] x) => (uint8[N,2] y) { most = Constant<value = uint8 {255}>()\n"
        "y = Sub(most, x) }",
        requests("x", [1, 2], [255, 0], dtype="u1"),
        lambda inputs: {"y": 255 - inputs["x"]},
    ),
    Kind(
        "float64",
        tensors(("x", "FP64", "[2]")),
        tensors(("y", "FP64", "[2]")),
        sources.PredictThird,
        sources.ModuleThird,
        "(double[N,2] x) => (double[N,2] y) { three = Constant<value = double {3.0}>()\n"
        "y = Div(x, three) }",
        requests("x", [1, 2], [0.1, -1e300], dtype="f8"),
        lambda inputs: {"y": inputs["x"] / 3},
    ),
    Kind(
        "int64",
        tensors(("x", "INT64", "[2]")),
        tensors(("y", "INT64", "[2]")),
        sources.PredictLarge,
        sources.ModuleLarge,
        "(int64[N,2] x) => (int64[N,2] y) { large = Constant<value_int=3000000000>()\n"
        "y = Mul(x, large) }",
        requests("x", [1, -2], [1_000_000_007, 0], dtype="i8"),
        lambda inputs: {"y": inputs["x"] * 3_000_000_000},
    ),
    Kind(
        "bool",
        tensors(("x", "BOOL", "[2]")),
        tensors(("y", "BOOL", "[2]")),
        sources.PredictNot,
        sources.ModuleNot,
        "(bool[N,2] x) => (bool[N,2] y) { y = Not(x) }",
        requests("x", [True, False], [False, False], dtype="?"),
        lambda inputs: {"y": ~inputs["x"]},
    ),
    Kind(
        "inputs by keyword, in another order",
        tensors(("right", "FP32", "[2]"), ("left", "FP32", "[2]")),
        Y,
        sources.PredictKeyword,
        sources.ModuleKeyword,
        "(float[N,2] left, float[N,2] right) => (float[N,2] y) "
        "{ two = Constant<value_float=2.0>()\ntwice = Mul(right, two)\ny = Sub(left, twice) }",
        [{"right": request["x"], "left": request["x"] * 10} for request in FLOATS],
        lambda inputs: {"y": inputs["left"] - 2 * inputs["right"]},
        by_keyword=True,
    ),
    Kind(
        "free axes",
        "[{name: x, dtype: FP32, shape: [-1, 2], warmup_shape: [3, 2]}]",
        Y,
        sources.PredictFree,
        sources.ModuleFree,
        "(float[N,M,2] x) => (float[N,2] y) { axis = Constant<value_ints=[1]>()\n"
        "y = ReduceSum<keepdims=0>(x, axis) }",
        [{"x": np.arange(4 * n, dtype="f4").reshape(2, n, 2)} for n in (3, 5, 3, 1)],
        lambda inputs: {"y": inputs["x"].sum(1)},
        {"aoti": Cell("yes, not compiled", uncompiled="expected inputs without free axes")},
        free="x",
    ),
    Kind(
        "`preprocess` that changes dtype and name",
        tensors(("picture", "UINT8", "[4]")),
        tensors(("y", "FP32", "[]")),
        sources.PredictPrepared,
        sources.ModulePrepared,
        "",
        requests("picture", [0, 255, 0, 255], [255, 255, 255, 255], dtype="u1"),
        lambda inputs: {"y": (inputs["picture"].astype("f4") / 255).mean(1)},
        dict.fromkeys(("torchscript", "export", "aoti", "onnx"), NO_HOOKS),
    ),
    Kind(
        "one row that becomes many, folded back",
        tensors(("x", "FP32", "[6]")),
        tensors(("y", "FP32", "[]")),
        sources.PredictWindows,
        sources.ModuleWindows,
        "",
        requests("x", [1, 2, 3, 4, 0, 0], [0, 5, 0, 0, 6, 7]),
        lambda inputs: {"y": (inputs["x"].reshape(-1, 3, 2) ** 2).sum(2).max(1)},
        dict.fromkeys(("torchscript", "export", "aoti", "onnx"), NO_HOOKS),
    ),
    Kind(
        "gradients of the inputs",
        X,
        Y,
        sources.PredictGradient,
        sources.ModuleGradient,
        "",
        FLOATS,
        lambda inputs: {"y": -3 * inputs["x"] ** 2},
        {
            **dict.fromkeys(
                ("python class", "nn.Module", "torchscript"), Cell("yes, `gradients: true`")
            ),
            "onnx": NONE,
        },
        gradients=True,
    ),
    Kind(
        "a function that makes the model",
        X,
        Y,
        sources.PredictOne,
        sources.ModuleOne,
        "",
        FLOATS,
        lambda inputs: {"y": inputs["x"] * 2 + 1},
        dict.fromkeys(("torchscript", "export", "aoti", "onnx"), NONE),
        by_function=True,
    ),
    Kind(
        "rows of unequal length",
        tensors(("count", "INT64", "[]")),
        "[{name: y, dtype: FP32, shape: [-1, 2], ragged: true}]",
        sources.PredictUnequal,
        sources.ModuleUnequal,
        "",
        [{"count": np.array(counts)} for counts in ([2], [0], [3, 1], [2, 2])],
        _unequal,
        dict.fromkeys(("export", "aoti", "onnx"), NONE),
    ),
]


def table() -> str:
    """Return KINDS as a table of Markdown."""
    lines = [
        f"| | {' | '.join(f'`{name}`' for name in FORMATS)} |",
        f"|---|{'---|' * len(FORMATS)}",
    ]
    for kind in KINDS:
        cells = " | ".join(kind.cell(name).text for name in FORMATS)
        lines.append(f"| {kind.name} | {cells} |")
    return "\n".join(lines) + "\n"
