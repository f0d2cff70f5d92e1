"""The line with `curl` that a person reads who serves a single file."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from batcher.app.first_words import MAX_BODY_CHARS, curl_line, first_words
from batcher.app.target import Said, target_flags
from batcher.config.model_file import ModelDefinition
from batcher.config.settings import load_settings
from batcher.core.spec import ModelSpec, TensorSpec, datatype
from batcher.errors import ConfigError
from batcher.serving.repository.folders import find_models

URL = "http://127.0.0.1:1/models/m/predict"


def tensor(name: str, dtype: str, *shape: int, warmup: tuple[int, ...] | None = None) -> TensorSpec:
    return TensorSpec(name, datatype(dtype), shape, warmup_shape=warmup)


def definition(*inputs: TensorSpec, sample: Path | None = None) -> ModelDefinition:
    spec = ModelSpec("m", "1", inputs, (tensor("y", "FP32", -1),))
    place = Path("net.onnx")
    return ModelDefinition(spec, "onnx", place, place, sample=sample, learnt=("a graph", "a note"))


def test_a_small_body_stands_in_the_line() -> None:
    line = curl_line(definition(tensor("x", "FP32", 2), tensor("t", "BYTES", 1)), URL)
    assert shlex.split(line)[-1] == '{"inputs": {"x": [[0.0, 0.0]], "t": [["an example"]]}}'


def test_a_free_axis_has_the_size_of_the_warm_up() -> None:
    line = curl_line(definition(tensor("ids", "INT64", -1, warmup=(3,))), URL)
    assert shlex.split(line)[-1] == '{"inputs": {"ids": [[0, 0, 0]]}}'


def test_a_large_body_is_made_by_a_command() -> None:
    picture = tensor("x", "FP32", 3, 224, 224)
    assert curl_line(definition(picture), URL).startswith("head -c 602112 /dev/zero | curl")
    two = curl_line(definition(picture, tensor("t", "BYTES")), URL)
    assert two.startswith("python3 -c ")
    assert len(two) < 2 * MAX_BODY_CHARS


def test_a_sample_of_the_model_is_what_the_line_sends(tmp_path: Path) -> None:
    sample = tmp_path / "a sample.npy"
    line = curl_line(definition(tensor("x", "FP32", 2), sample=sample), URL)
    assert shlex.split(line)[-1] == f"@{sample}"
    assert "Content-Type: application/x-npy" in line


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:80 and grpc://127.0.0.1:81", "curl http://127.0.0.1:80/models/m/"),
        ("http://0.0.0.0:80", "curl http://localhost:80/models/m/"),
        ("unix:/run/b.sock", "curl --unix-socket /run/b.sock http://localhost/models/m/"),
    ],
)
def test_the_line_asks_where_the_server_listens(address: str, words: str) -> None:
    text = first_words([definition(tensor("x", "FP32", -1))], address)
    assert words in text
    assert text.startswith("model m, a graph\n  takes x FP32[-1]\n  gives y FP32[-1]\n  a note\n")


class TestTarget:
    def test_one_file_is_served_alone_under_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "net.py"
        path.touch()
        said = Said(None, ["x=FP32[2]"], ["y=FP32"])
        flags = target_flags(f"{path}:Net", said, True)
        assert {key: value for key, (_, value) in flags.items()} == {
            ("models", "net", "path"): f"{path}:Net",
            ("models", "net", "inputs"): {"x": "FP32[2]"},
            ("models", "net", "outputs"): {"y": "FP32"},
            ("model_repository",): None,
        }

    @pytest.mark.parametrize("layout", ["model.yaml", "1/model.yaml"])
    def test_the_folder_of_a_model_is_served_as_that_model(
        self, tmp_path: Path, layout: str
    ) -> None:
        file = tmp_path / "m" / layout
        file.parent.mkdir(parents=True)
        file.touch()
        flags = target_flags(str(tmp_path / "m"), Said("other"), False)
        assert list(flags) == [("models", "other", "path")]
        assert list(target_flags(str(tmp_path), Said(), True)) == [("model_repository",)]

    def test_the_folder_of_a_version_has_the_name_of_its_model(self, tmp_path: Path) -> None:
        (tmp_path / "m/3").mkdir(parents=True)
        (tmp_path / "m/3/model.yaml").touch()
        flags = target_flags(str(tmp_path / "m/3"), Said(), True)
        assert next(iter(flags)) == ("models", "m", "path")
        settings = load_settings(None, {}, flags)
        assert [(each.name, each.version) for each in find_models(settings, tmp_path).folders] == [
            ("m", "3")
        ]

    def test_what_is_said_of_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="got a folder, whose"):
            target_flags(str(tmp_path), Said(inputs=["x=FP32"]), True)

    @pytest.mark.parametrize("pair", ["x", "=FP32"])
    def test_an_input_without_a_name_or_a_text_is_refused(self, tmp_path: Path, pair: str) -> None:
        path = tmp_path / "net.py"
        path.touch()
        with pytest.raises(ConfigError, match=r"--input: expected NAME=DTYPE\[SHAPE\]"):
            target_flags(str(path), Said(inputs=[pair]), True)
