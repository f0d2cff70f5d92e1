"""What a single file says of its model: right, or an error that says what to write."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from batcher.config.model_file import ModelDefinition
from batcher.config.single_file import SingleFile, name_of, split_entry
from batcher.errors import BatcherError, ConfigError
from batcher.models.describing.child import described
from batcher.models.describing.describe import describe, task_of
from batcher.models.describing.file_kinds import kind_of
from batcher.models.describing.probe import definition_from
from tests.support import single_files


def definition(single: SingleFile) -> ModelDefinition:
    """Describe a file as its process does, in this one: it takes a fraction of the time."""
    kind = kind_of(single.file)
    is_graph = kind == "onnx"
    found = describe(single, False) if is_graph else described(task_of(single, kind, False))
    return definition_from(found, "m", "1", single.file.parent)


def tensors(found: ModelDefinition) -> tuple[list[str], list[str]]:
    """Return inputs and outputs as texts."""
    spec = found.spec
    return (
        [f"{each.name} {each.describe()}" for each in spec.inputs],
        [f"{each.name} {each.describe()}" for each in spec.outputs],
    )


def write(folder: Path, source: str, name: str = "net.py") -> SingleFile:
    (folder / name).write_text(source)
    return SingleFile(folder / name)


GOOD = [
    (
        single_files.ANNOTATED,
        ["x FP32[-1,4]", "shift FP32[-1,1]"],
        ["shifted FP32[-1,4]", "top INT64[-1]"],
    ),
    (
        "import batcher\n\n\n@batcher.model(inputs={'text': 'BYTES'})\n"
        "def lengths(text):\n    return [len(each) for each in text]\n",
        ["text BYTES[-1]"],
        ["output INT64[-1]"],
    ),
    (
        "import batcher\nimport numpy as np\n\n\n@batcher.model(inputs={'x': 'FP32[4]'})\n"
        "def boxes(x):\n    return {'boxes': [x[:at] for at in range(len(x))]}\n",
        ["x FP32[-1,4]"],
        ["boxes FP32[-1,-1,4]"],
    ),
    (
        "import batcher\n\n\n@batcher.model(inputs={'text': 'BYTES'})\nclass Length:\n"
        "    def predict(self, text):\n        return {'n': [len(each) for each in text]}\n",
        ["text BYTES[-1]"],
        ["n INT64[-1]"],
    ),
    (
        "class Sum:\n    def predict(self, x: 'FP32[4]', y: 'FP32[4]', scale=1):\n"
        "        return (x + y) * scale\n",
        ["x FP32[-1,4]", "y FP32[-1,4]"],
        ["output FP32[-1,4]"],
    ),
    (single_files.DECLARED, ["text BYTES[-1,1]"], ["upper BYTES[-1,1]", "length INT64[-1]"]),
    (single_files.TYPED, ["x FP32[-1,-1]"], ["total FP32[-1]"]),
    (single_files.FUNCTION, ["x FP32[-1,-1,2]", "factor FP32[-1,1,1]"], ["y FP32[-1,-1,2]"]),
    (
        single_files.EXAMPLE,
        ["x FP32[-1,3]", "ids INT64[-1,2]"],
        ["y FP32[-1,3]", "ids INT64[-1,2]"],
    ),
]


@pytest.mark.parametrize(("source", "inputs", "outputs"), GOOD)
def test_a_file_of_python_says_what_it_takes_and_a_run_shows_what_it_gives(
    tmp_path: Path, source: str, inputs: list[str], outputs: list[str]
) -> None:
    assert tensors(definition(write(tmp_path, source))) == (inputs, outputs)


def test_an_example_shows_the_inputs_of_a_module_that_says_nothing(tmp_path: Path) -> None:
    single_files.write_script(tmp_path / "net.pt")
    single = write(tmp_path, single_files.PLAIN)._replace(sample=tmp_path / "ones.npy")
    assert tensors(definition(single)) == (["x FP32[-1,4]"], ["output FP32[-1,3]"])


def test_what_is_declared_from_outside_comes_first(tmp_path: Path) -> None:
    single = write(tmp_path, single_files.FUNCTION)._replace(
        inputs={"x": "FP64[2,2]", "factor": {"dtype": "FP64", "shape": [1, 1]}},
        outputs={"y": "FP32[2,2]"},
    )
    assert tensors(definition(single)) == (
        ["x FP64[-1,2,2]", "factor FP64[-1,1,1]"],
        ["y FP32[-1,2,2]"],
    )


FREE = [
    ("FP32[-1]", "[[1, 2, 3, 4]]", "x", "y FP32[-1,-1]", (4,)),
    ("FP32[-1]", "[[1, 2, 3, 4]]", "x[:, :4]", "y FP32[-1,4]", (4,)),
    ("FP32[-1]", "[[1, 2, 3, 4]]", "x.sum(1)", "y FP32[-1]", (4,)),
    (
        "FP32[-1]",
        "[[1, 2, 3, 4]]",
        "x + np.zeros(x.shape) if x.shape[1] <= 4 else 1 / 0",
        "y FP64[-1,-1]",
        (4,),
    ),
    ("FP32[-1,-1]", "[[[1, 2], [3, 4], [5, 6]]]", "x @ np.ones((2, 5))", "y FP64[-1,-1,5]", (3, 2)),
    ("INT64[-1,2]", "[[[1, 2], [3, 4], [5, 6]]]", "x[..., 0]", "y INT64[-1,-1]", (3, 2)),
    ("BYTES[-1]", "[['a', 'b']]", "x", "y BYTES[-1,-1]", (2,)),
    ("BYTES", "'one text'", "[len(t) for t in x]", "y INT64[-1]", None),
]


@pytest.mark.parametrize(("declared", "sample", "result", "output", "warmup"), FREE)
def test_a_sample_shows_a_size_of_a_free_axis_which_stays_free(
    tmp_path: Path,
    declared: str,
    sample: str,
    result: str,
    output: str,
    warmup: tuple[int, ...] | None,
) -> None:
    source = (
        "import batcher\nimport numpy as np\n\n\n"
        f"@batcher.model(inputs={{'x': '{declared}'}}, sample={{'x': {sample}}})\n"
        f"class Model:\n    def predict(self, x):\n        return {{'y': {result}}}\n"
    )
    found = definition(write(tmp_path, source))
    assert tensors(found)[1] == [output]
    assert found.spec.inputs[0].warmup_shape == warmup


def test_a_warmup_shape_that_is_declared_leaves_the_axis_free(tmp_path: Path) -> None:
    declared = {"x": {"dtype": "FP32", "shape": [-1], "warmup_shape": [4]}}
    source = f"import batcher\n\n\n@batcher.model(inputs={declared})\ndef f(x):\n    return x\n"
    assert tensors(definition(write(tmp_path, source)))[1] == ["output FP32[-1,-1]"]


def test_a_sample_that_the_declared_inputs_do_not_take_is_an_error(tmp_path: Path) -> None:
    source = (
        "import batcher\nimport numpy as np\n\n\n"
        "@batcher.model(inputs={'x': 'FP32[3]'}, sample=np.ones((1, 4), np.float32))\n"
        "def f(x):\n    return x\n"
    )
    words = r"sample: input 'x': expected FP32\[-1,3\]; got FP32\[1,4\]"
    with pytest.raises(ConfigError, match=words):
        definition(write(tmp_path, source))


def test_a_sample_file_gives_an_onnx_graph_its_size_of_warmup(tmp_path: Path) -> None:
    single_files.write_onnx(tmp_path / "wide.onnx", "wide")
    np.save(tmp_path / "x.npy", np.ones((1, 3, 5), np.float32))
    single = SingleFile(tmp_path / "wide.onnx", sample=tmp_path / "x.npy")
    found = describe(single, False)
    assert found.values["inputs"][0]["warmup_shape"] == [3, 5]
    assert found.values["sample"] == str(tmp_path / "x.npy")


def test_a_free_axis_gets_a_size_that_the_model_runs_with(tmp_path: Path) -> None:
    source = single_files.FUNCTION.replace(
        "    return", '    assert x.shape[1] % 32 == 0, "whole windows"\n    return'
    )
    (x, _) = definition(write(tmp_path, source)).spec.inputs
    assert x.warmup_shape == (32, 2)


def test_the_graph_says_all_of_an_onnx_file(tmp_path: Path) -> None:
    for kind in ("strings", "fixed", "wide"):
        single_files.write_onnx(tmp_path / f"{kind}.onnx", kind)
    strings, fixed, wide = (
        definition(SingleFile(tmp_path / f"{kind}.onnx")) for kind in ("strings", "fixed", "wide")
    )
    assert tensors(strings) == (["t BYTES[-1]"], ["u BYTES[-1]"])
    assert tensors(fixed) == (["x FP32[-1,3]"], ["y FP32[-1,3]"])
    assert tensors(wide) == (["x FP32[-1,3,-1]"], ["y FP32[-1,3,-1]"])
    assert wide.spec.inputs[0].warmup_shape == (3, 8)


def test_a_program_says_its_inputs_and_an_archive_of_torchscript_needs_an_example(
    tmp_path: Path,
) -> None:
    single_files.write_export(tmp_path / "net.pt2")
    single_files.write_script(tmp_path / "net.pt")
    assert tensors(definition(SingleFile(tmp_path / "net.pt2"))) == (
        ["x FP32[-1,4]", "scale FP32[-1,1]"],
        ["y FP32[-1,4]", "sum FP32[-1]"],
    )
    script = SingleFile(tmp_path / "net.pt")
    for said in ({"inputs": {"x": "FP32[4]"}}, {"sample": tmp_path / "ones.npy"}):
        assert tensors(definition(script._replace(**said))) == (
            ["x FP32[-1,4]"],
            ["output FP32[-1,4]"],
        )
    with pytest.raises(ConfigError, match=r"batcher serve net.pt --input \"x=FP32\[4\]\""):
        definition(script)


def test_what_a_file_imports_from_beside_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "sizes.py").write_text("TEXT = 'FP32[5]'\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("FACTOR = 3\n")
    source = (
        "import batcher\nfrom parts import FACTOR\nfrom sizes import TEXT\n\n\n"
        "@batcher.model(inputs={'x': TEXT})\ndef f(x):\n    return x * FACTOR\n"
    )
    assert tensors(definition(write(tmp_path, source))) == (["x FP32[-1,5]"], ["output FP32[-1,5]"])


WRONG = [
    ("net.onnx", "just text", "expected an ONNX graph, as torch.onnx.export writes one"),
    ("net.onnx", "", "expected an ONNX graph"),
    ("net.pt", "just text", "expected an archive that torch.jit.save or torch.export.save has"),
    ("model.yaml", "format: python", "got the file that says .*: name that folder"),
    ("net.txt", "just text", "expected one of net.onnx, net.pt2, .* got a file of another kind"),
    ("net.py", "class Net(:\n    pass\n", r"net.py:1: invalid syntax: 'class Net\(:'"),
    ("net.py", "import nowhere_at_all\n", "No module named 'nowhere_at_all' .*net.py:1.*install"),
    ("net.py", "x = 1 / 0\n", "ZeroDivisionError: division by zero .*net.py:1"),
    ("net.py", "", "a class with predict, .* got none. Write one"),
    ("net.py", "class M:\n    def run(self, x): ...\n", "got the class M, which has no predict"),
    ("net.py", "def f(x): ...\ndef g(x): ...\n", r"got functions alone \(f, g\)"),
    ("net.py", "def f(x, y):\n    return x\n", r'={"x": "FP32\[4\]", "y": .*\n    def f\(x, y\):'),
    (
        "net.py",
        "class M:\n    def predict(self, text: str, k: int = 1): ...\n",
        r'inputs={"text": "BYTES"}\)',
    ),
    ("net.py", "import torch\n\nnet = torch.nn.Linear(1, 1)\n", "got net, which is made already"),
    (
        "net.py",
        single_files.TWO,
        "First, Second: name one, as in net.py:First or net.py:Second",
    ),
    (
        "net.py",
        single_files.PLAIN,
        r'inputs={"x": "FP32\[4\]"}\)\n    class Net\(torch.nn.Module\)',
    ),
    ("my net.py", single_files.PLAIN, "of letters, digits, _ and -; rename"),
    (
        "net.py",
        single_files.DECLARED.replace("BYTES[1]", "TEXT[1]"),
        "batcher.model: text: expected one of BOOL, .*; got 'TEXT'",
    ),
    (
        "net.py",
        single_files.DECLARED.replace('(inputs={"text": "BYTES[1]"})', ""),
        "batcher.model: expected arguments: write @batcher.model",
    ),
    (
        "net.py",
        single_files.FUNCTION.replace("x * factor", "x[:1]"),
        "output 'y': expected 2 rows out, as many as in; got an array of shape",
    ),
    (
        "net.py",
        "def predict(text, x):\n    return len(text)\n",
        r'inputs={"text": "BYTES", "x": "FP32\[4\]"}',
    ),
    (
        "net.py",
        single_files.FUNCTION.replace("x * factor", "x @ factor.nothing"),
        r"expected the model to run on a few rows of x FP32\[.*, .* got in `predict`: "
        r"AttributeError.* `predict` gets a batch: .* takes other inputs, say so: --input ",
    ),
    (
        "net.py",
        "import batcher\n@batcher.model(inputs={'x': 'float[4]'})\ndef double(x):\n    return x\n",
        r"^net.py: batcher.model: x: expected one of BOOL, .*got 'float'",
    ),
]


@pytest.mark.parametrize(("name", "source", "words"), WRONG)
def test_what_cannot_be_served_is_an_error_that_says_what_to_write(
    tmp_path: Path, name: str, source: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.compile(words, re.DOTALL)):
        definition(write(tmp_path, source, name))


def test_weights_alone_are_refused_with_the_class_to_write(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.ones(3, 4)}, tmp_path / "net.safetensors")
    torch.save({"layer.weight": torch.ones(3, 4)}, tmp_path / "net.pt")
    for name, words in (
        ("net.safetensors", r"1 tensors, layer.weight, .*weights=\"net.safetensors\""),
        ("net.pt", "what torch.save has written, .*torch.export.save.*class Net"),
    ):
        with pytest.raises(ConfigError, match=re.compile(words, re.DOTALL)):
            kind_of(tmp_path / name)


@pytest.mark.parametrize("name", ["model.pfa", "saved_model.pb", "net.h5", "net.engine"])
def test_a_format_that_is_not_served_says_what_to_convert_to(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=rf"^{re.escape(name)}: expected .* ONNX"):
        kind_of(tmp_path / name)


def test_a_file_that_git_lfs_has_not_fetched_is_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ConfigError, match=r"net\.pt: expected a model; got .* `git lfs pull`"):
        kind_of(tmp_path / "net.pt")


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").touch()
    with pytest.raises(ConfigError, match=r"there is none; did you mean network\.onnx"):
        kind_of(tmp_path / "netwrk.onnx")


def test_a_file_whose_code_ends_its_process_is_an_error_with_the_status(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the end of the process that read it, with status 3"):
        describe(write(tmp_path, "import os\n\nos._exit(3)\n"), False)


@pytest.mark.parametrize(
    ("path", "file", "entry", "name"),
    [
        ("net.onnx", "net.onnx", "", "net"),
        ("a/net.v2.pt2", "a/net.v2.pt2", "", "net.v2"),
        ("model.py:Net", "model.py", "Net", "model"),
    ],
)
def test_a_path_may_name_the_class(path: str, file: str, entry: str, name: str) -> None:
    assert split_entry(Path(path)) == (Path(file), entry)
    assert name_of(Path(file)) == name


@pytest.mark.parametrize(
    ("file", "content", "module", "extra"),
    [
        ("trees.ubj", b"{", "xgboost", "xgboost"),
        ("trees.txt", b"tree\n", "lightgbm", "lightgbm"),
        ("net.keras", b"", "keras", "keras"),
    ],
)
def test_without_the_library_of_a_file_its_extra_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: bytes,
    module: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / file).write_bytes(content)
    task = task_of(SingleFile(tmp_path / file), kind_of(tmp_path / file), False)
    with pytest.raises(BatcherError, match=f"expected the extra {extra}; got none: .*pip"):
        described(task)
