"""`batcher check --model`: which versions it checks, what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from batcher.app.checking import rules
from batcher.app.checking.contract import Finding, Report, Rule, Timing
from batcher.app.checking.report_text import WIDTH_COLUMNS, report_text
from batcher.app.cli import main
from tests.support.model_folders import Folders
from tests.support.pipelines import CHAIN, write_pipeline

DIGITS = Path(__file__).parents[3] / "models" / "digits"
GOOD = 'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"] * 2}\n'
WRONG = (
    'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"][:1], "z": '
    'inputs["x"]}\n'
)
REFUSING = (
    'class Model:\n    def load(self, device):\n        raise OSError(f"no {device} today")\n\n    '
    "predict = None\n"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the repository, whose `config.yaml` would be taken."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_the_digits_keep_the_contract_on_the_sample_that_they_bring() -> None:
    done = run("--model", DIGITS, "--device", "cpu", "--set", "defaults.max_batch_size=8")
    assert (done.exit_code, "model digits/1: keeps the contract" in done.stdout) == (0, True)
    assert "run on 1 row of sample.png, and 10 rows made from them" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-5:]] == ["1", "2", "3", "7", "8"]


def test_every_breach_is_explained_and_ends_it_with_status_1(folders: Folders) -> None:
    folders.python(WRONG)
    done = run("--model", folders.base / "m")
    assert done.exit_code == 1
    assert "model m/1: 1 breach, 1 note" in done.stdout
    assert "1. breach: output 'y', batch sizes 2, 3, 7, 64" in done.stdout
    assert "2 rows in, 1 rows out in output 'y'" in done.stdout
    assert f"why: {rules.ROWS.why}"[:90] in done.stdout
    assert f"mend: {rules.ROWS.mend}"[:90] in done.stdout
    assert "2. note: output 'z'" in done.stdout
    assert "Error: 1 breach of the contract" in done.stderr


def test_of_a_single_file_no_model_yaml_is_blamed(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text(GOOD)
    done = run("--model", tmp_path / "silent.py")
    assert (done.exit_code, "1. breach: silent.py" in done.stdout) == (1, True)
    assert "correct the line that is named" not in done.stdout
    inputs, outputs = "inputs={'x': 'FP32[2]'}", "outputs={'y': 'FP32[2]'}"
    declared = f"import batcher\n\n\n@batcher.model({inputs}, {outputs})\n{WRONG}"
    (tmp_path / "wrong.py").write_text(declared)
    done = run("--model", tmp_path / "wrong.py")
    assert (done.exit_code, "2 rows in, 1 rows out" in done.stdout) == (1, True)
    assert "model.yaml" not in done.stdout


def test_all_versions_of_a_model_are_checked_or_the_one_that_is_named(folders: Folders) -> None:
    folders.python(GOOD)
    folders.python(WRONG, version="2")
    both = run("--model", folders.base / "m")
    assert both.exit_code == 1
    assert "model m/1: keeps the contract" in both.stdout
    assert "model m/2: 1 breach" in both.stdout
    one = run("--model", folders.base / "m" / "1")
    assert (one.exit_code, "m/2" in one.stdout) == (0, False)


def test_a_folder_without_a_number_is_version_1(folders: Folders) -> None:
    folders.python(GOOD, version="draft")
    done = run("--model", folders.base / "m" / "draft")
    assert done.exit_code == 0
    assert "model draft/1: keeps the contract\n" in done.stdout


def test_settings_are_those_of_the_model(folders: Folders, tmp_path: Path) -> None:
    folders.python(GOOD)
    (tmp_path / "config.yaml").write_text(
        "models:\n  named: {path: repository/m, max_batch_size: 5}\n"
    )
    done = run("--model", folders.base / "m")
    assert "model named/1: keeps the contract" in done.stdout
    assert done.stdout.splitlines()[-1].split()[0] == "5"
    done = run("--model", folders.base / "m", "--set", "models.named.max_batch_size=4")
    assert done.stdout.splitlines()[-1].split()[0] == "4"


def test_the_device_is_that_of_the_option_whatever_the_settings_say(folders: Folders) -> None:
    folders.python(REFUSING.replace("predict = None", "def predict(self, inputs): ..."))
    done = run(
        "--model",
        folders.base / "m",
        "--device",
        "cpu",
        "--set",
        f"models.m.path={folders.base / 'm'}",
        "--set",
        "models.m.device=cuda:7",
    )
    assert done.exit_code == 1
    assert "expected the model to load on device cpu; got OSError: no cpu today" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--device", "cpu"), 2, "--device is for --model"),
        (("--model", "nowhere"), 1, "nowhere"),
        (("--model", "."), 1, "expected version folders"),
        (("--model", DIGITS, "--device", "tpu"), 1, "--device"),
        (("--model", DIGITS, "--set", "prot=1"), 1, "did you mean port"),
        (("net.onnx",), 2, "write: batcher check --model net.onnx"),
        (("--model", DIGITS.parent / "digit"), 1, "there is none; did you mean digits?"),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(
    arguments: tuple[object, ...], status: int, complaint: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == status
    assert complaint in done.output
    assert "Traceback" not in done.output


def test_without_a_model_the_configuration_is_checked(folders: Folders) -> None:
    folders.python(WRONG)
    done = run("--set", f"model_repository={folders.base}")
    assert done.exit_code == 0, "no model is loaded"
    assert "the configuration is right; 1 model\n" in done.output


def test_a_configuration_without_a_model_fails_and_names_what_is_left_out(
    folders: Folders,
) -> None:
    folders.python(WRONG, version="v1")
    done = run("--set", f"model_repository={folders.base}")
    assert done.exit_code == 1
    assert "m in the repository is left out: expected folders of versions" in done.output
    assert "got 'v1': rename it to 1" in done.output
    assert "batcher serve FILE" in done.output
    explicit = run("--set", f"model_repository={folders.base}", "--set", "model_control=explicit")
    assert explicit.exit_code == 0, "clients load models there"


def test_a_report_is_text_of_a_readable_width() -> None:
    finding = Finding(
        Rule("breach", "because " * 40), "predict", "expected this\n  at once; got that"
    )
    text = report_text(Report("m/1", "rows", (finding, finding), (Timing(4, 0.002),)))
    lines = text.splitlines()
    assert lines[0] == "model m/1: 2 breaches"
    assert max(map(len, lines)) <= WIDTH_COLUMNS + 5
    assert "2. breach: predict" in text
    assert "mend" not in text
    assert lines[-1].split() == ["4", "2.000", "0.5000"]


def test_the_check_of_a_configuration_names_a_class_that_is_not_there(folders: Folders) -> None:
    folders.python(GOOD)
    folders.python(GOOD, entry="code:Modell", version="2")
    done = run("--set", f"model_repository={folders.base}")
    assert (done.exit_code, "model m/1: python" in done.stdout) == (1, True)
    assert "class: expected a class or a function Modell in code.py" in done.stderr
    assert "did you mean Model?" in done.stderr
    assert "cannot be served" in done.stderr


def test_steps_of_a_pipeline_are_held_against_its_models(folders: Folders) -> None:
    folders.python(GOOD, name="one")
    folders.python(GOOD, name="two")
    repository = folders.base
    write_pipeline(repository, CHAIN)
    settings = ("--set", f"model_repository={repository}")

    right = run(*settings)
    write_pipeline(repository, CHAIN.replace("model: two", "model: tow"))
    wrong = run(*settings)

    assert (right.exit_code, "model p/1: pipeline, takes x" in right.stdout) == (0, True)
    assert (wrong.exit_code, "got 'tow'; did you mean 'two'?" in wrong.stderr) == (1, True)
