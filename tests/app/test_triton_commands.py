"""Commands read a model below a `config.pbtxt`, its settings included, as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from batcher.app.cli import main
from batcher.app.jobs.local import find_local
from batcher.app.tuning.subject import find_subject
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.repository.folders import find_models, settings_for

CONFIG = """\
name: "net"
backend: "onnxruntime"
max_batch_size: 8
instance_group [ { count: 2 kind: KIND_CPU } ]
optimization { cuda { graphs: true } }
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "net" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    return tmp_path / "models"


def run(models: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--set", f"model_repository={models}"])


def test_check_shows_the_model_and_each_field_without_a_meaning(models: Path) -> None:
    done = run(models, "check")
    assert "model net/1: onnx, takes x FP32[-1,4], gives y FP32[-1,4]\n" in done.output
    assert "  note: config.pbtxt:5: optimization.cuda has no meaning here" in done.output
    assert done.exit_code == 0


def test_check_names_refused_fields_and_settings_that_are_out_of_bounds(models: Path) -> None:
    file = models / "net" / "config.pbtxt"
    file.write_text(f"{CONFIG}sequence_batching {{ }}\n")
    done = run(models, "check")
    assert "config.pbtxt:8: sequence_batching: no state is kept" in done.output
    assert done.exit_code == 1
    file.write_text(CONFIG.replace("count: 2", "count: 300"))
    assert "config.pbtxt:4: instances: expected" in run(models, "check").output


def test_compile_names_the_format_that_cannot_be_compiled(models: Path) -> None:
    done = run(models, "compile", "net")
    assert "expected a model of format export or python to compile; got onnx, of" in done.output


def test_tune_and_jobs_begin_with_the_settings_of_the_file(models: Path) -> None:
    settings = ServerSettings(model_repository=str(models))
    subject = find_subject("net", settings, models)
    assert (subject.present.max_batch_size, subject.present.instances) == (8, 2)
    tuned = subject.settings({"present": {}, "other": {"max_batch_size": 4}})
    found = {each.name: settings_for(each, tuned) for each in find_models(tuned, models).folders}
    assert {name: own.max_batch_size for name, own in found.items()} == {"present": 8, "other": 4}
    assert find_local("net", settings, models).settings.max_batch_size == 8


def test_a_model_may_have_another_name_in_the_settings_but_its_folder_none(models: Path) -> None:
    settings = ServerSettings.model_validate(
        {"model_repository": None, "models": {"other": {"path": "net"}}}
    )
    assert find_local("other", settings, models).definition.spec.name == "other"
    (models / "net").rename(models / "renamed")
    settings = ServerSettings(model_repository=str(models))
    with pytest.raises(ConfigError, match=r"pbtxt:1: name: expected the name of its folder, 'ren"):
        find_local("renamed", settings, models)
