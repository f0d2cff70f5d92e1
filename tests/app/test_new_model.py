"""`batcher init`: the folder that it writes is served, checked and tested as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from batcher.app import new_model_files
from batcher.app.cli import main
from batcher.app.new_model import Wanted, write_folder
from batcher.app.new_model_files import files_of
from batcher.app.new_model_questions import Answers
from batcher.config.model_file import load_model_definition
from batcher.config.onnx_file import ExternalTensor, OnnxFile
from batcher.errors import ConfigError
from tests.support import single_files


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def check(folder: Path) -> str:
    """Return what `batcher check` says of the model in `folder`."""
    return run("check", "--model", folder, "--set", "defaults.device=cpu").output


def test_a_new_class_keeps_the_contract_before_it_is_filled_in(tmp_path: Path) -> None:
    done = run("init", tmp_path / "m")
    assert done.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "model.py",
        "model.yaml",
        "sample.json",
        "test_model.py",
    ]
    assert f"batcher serve {tmp_path / 'm'}\n" in done.output
    report = check(tmp_path / "m")
    assert "model m/1: keeps the contract" in report
    assert "run on 2 rows of sample.json" in report


TENSORS = (("x=FP32[3]", "ids=INT64[n]"), ("y=FP16[2,2]", "is_good=BOOL", "label=BYTES[1]"))


@pytest.mark.parametrize("kind", ["class", "module"])
def test_a_new_model_has_the_tensors_that_are_said(tmp_path: Path, kind: str) -> None:
    inputs, outputs = TENSORS
    outputs = outputs[: 2 if kind == "module" else 3]
    options = [f"--input={each}" for each in inputs] + [f"--output={each}" for each in outputs]
    assert run("init", tmp_path / "m", "--kind", kind, *options).exit_code == 0
    spec = load_model_definition("m", "1", tmp_path / "m").spec
    assert [each.describe() for each in spec.inputs] == ["FP32[-1,3]", "INT64[-1,-1]"]
    assert [each.name for each in spec.outputs] == ["y", "is_good", "label"][: len(outputs)]
    assert "keeps the contract" in check(tmp_path / "m")


def test_a_file_is_copied_with_all_that_it_says(tmp_path: Path) -> None:
    single_files.write_onnx(tmp_path / "net.onnx", "fixed")
    (tmp_path / "net.onnx.bak").write_bytes(b"an older one")
    (tmp_path / "upper.py").write_text(single_files.DECLARED)
    for name in ("net.onnx", "upper.py"):
        done = run("init", tmp_path / name[:2], "--from", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert (tmp_path / name[:2] / name).read_bytes() == (tmp_path / name).read_bytes()
        assert "keeps the contract" in check(tmp_path / name[:2])
    assert not (tmp_path / "ne/net.onnx.bak").exists()
    values = yaml.safe_load((tmp_path / "up/model.yaml").read_text())
    assert values["class"] == "upper:Upper"
    assert values["inputs"] == [{"name": "text", "dtype": "BYTES", "shape": [1]}]


def test_what_a_file_imports_from_beside_it_is_copied(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "parts" / "deep").mkdir(parents=True)
    (home / "parts" / "__init__.py").write_text("from .deep.factor import FACTOR\n")
    (home / "parts" / "deep" / "factor.py").write_text("import again\n\nFACTOR = again.THREE\n")
    (home / "parts" / "words.txt").write_text("one")
    (home / "again.py").write_text("import sizes\n\nTHREE = 3\n")
    (home / "sizes.py").write_text("TEXT = 'FP32[5]'\n")
    (home / "json.py").write_text("of nobody\n")
    (home / "other.py").write_text("of nobody\n")
    (home / "net.py").write_text(
        "import json\nimport batcher\n\n\n@batcher.model(inputs={'x': 'FP32[5]'})\n"
        "def f(x):\n    from parts import FACTOR\n\n    return x * FACTOR\n"
    )
    done = run("init", tmp_path / "m", "--from", home / "net.py")
    assert done.exit_code == 0, done.output
    there = {str(path.relative_to(tmp_path / "m")) for path in (tmp_path / "m").rglob("*.*")}
    own = {"model.yaml", "sample.json", "test_model.py", "net.py", "again.py", "sizes.py"}
    assert there == own | {"parts/__init__.py", "parts/deep/factor.py", "parts/words.txt"}
    assert "keeps the contract" in check(tmp_path / "m")
    assert "Copy there also what the code opens by itself" in done.output


def test_the_weights_of_a_graph_are_copied_by_the_names_in_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / "net.onnx"
    (tmp_path / "w").mkdir()
    weights = tmp_path / "w" / "all.bin"
    for path in (graph, weights, tmp_path / "net.onnx.bak"):
        path.touch()
    tensor = ExternalTensor("w", "FP32", (1,), "w/all.bin", 0)
    monkeypatch.setattr(
        new_model_files, "read_onnx", lambda path, nodes: OnnxFile(external=[tensor])
    )
    assert files_of(graph) == {"net.onnx": graph, "w/all.bin": weights}
    weights.unlink()
    with pytest.raises(ConfigError, match=r"names, 'w/all.bin', in the folder of the graph"):
        files_of(graph)


def test_a_sample_that_is_named_is_the_sample_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x']}\n"
    )
    (tmp_path / "s.json").write_text('{"x": [[1.5, 2.5], [3, 4], [5, 6]]}')
    sample = ("--sample", tmp_path / "s.json")
    assert run("init", tmp_path / "m", "--from", tmp_path / "net.py", *sample).exit_code == 0
    written = (tmp_path / "m" / "sample.json").read_text()
    assert written == '{"inputs": {"x": [[1.5, 2.5], [3.0, 4.0]]}}\n'
    assert yaml.safe_load((tmp_path / "m/model.yaml").read_text())["sample"] == "sample.json"


@pytest.mark.long
def test_the_test_that_is_written_runs_and_can_fail(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        write_folder(tmp_path / name, Wanted())
    source = (tmp_path / "bad/model.py").read_text()
    (tmp_path / "bad/model.py").write_text(source.replace("(rows, 4)", "(rows + 1, 4)"))
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-rA", ".")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PASSED good/test_model.py::test_the_model_answers_its_sample" in done.stdout
    assert "FAILED bad/test_model.py::test_the_model_answers_its_sample" in done.stdout
    assert "2 rows in, 3 rows out" in done.stdout or "1 rows in, 2 rows out" in done.stdout


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"expected a folder without model\.py; .* move the file"):
        write_folder(tmp_path / "m", Wanted())
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["model.py"]


def test_a_file_that_says_too_little_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("no graph")
    done = run("init", tmp_path / "m", "--from", tmp_path / "net.onnx")
    assert done.exit_code == 1
    assert "expected an ONNX graph" in done.output
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            "\nmodule\na=FP32[2] b=INT64\ny=FP32\n",
            {
                "source": None,
                "kind": "module",
                "inputs": {"a": "FP32[2]", "b": "INT64"},
                "outputs": {"y": "FP32"},
            },
        ),
        (
            "\n\n\n\n",
            {
                "source": None,
                "kind": "class",
                "inputs": {"x": "FP32[4]"},
                "outputs": {"y": "FP32[4]"},
            },
        ),
        (
            "net.onnx\n",
            {"source": Path("net.onnx"), "kind": "class", "inputs": None, "outputs": None},
        ),
    ],
)
def test_a_person_is_asked_at_most_four_questions(answers: str, expected: dict[str, Any]) -> None:
    got: list[dict[str, Any]] = []

    @click.command()
    def ask() -> None:
        got.append(Answers().asked(True))

    done = CliRunner().invoke(ask, input=answers)
    assert done.exit_code == 0, done.output
    assert got == [expected]


def test_what_options_say_is_not_asked_for() -> None:
    said = Answers(None, "class", ["x=FP32"], ["y=FP32"])
    assert said.asked(True) == said.asked(False)


def test_the_next_commands_work_for_a_folder_with_a_space_in_its_name(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        'class Net:\n    def predict(self, x: "FP32[2]") -> "FP32[2]":\n        return x\n'
    )
    done = run("init", tmp_path / "my net", "--from", source)
    assert f"  batcher serve '{tmp_path / 'my net'}'\n" in done.output
    assert f"  batcher check --model '{tmp_path / 'my net'}'\n" in done.output
    assert f"  pytest '{tmp_path / 'my net'}'\n" in done.output


@pytest.mark.parametrize("is_there", [True, False])
def test_how_pytest_is_installed_is_told_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setattr("batcher.app.cli.find_spec", lambda _: object() if is_there else None)
    done = run("init", tmp_path / "net")
    assert ("pip install pytest" in done.output) is not is_there
