"""`model.yaml`: what a model is, and how a wrong file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.core.spec import ImageSpec, Labels
from batcher.errors import ConfigError

ROOT = Path(__file__).parents[2]
RIGHT = """\
format: python
class: net:Net
inputs:
  - name: x
    dtype: FP32
    shape: [4]
outputs:
  - name: y
    dtype: FP32
    shape: [2]
"""
Define = Callable[..., ModelDefinition]


@pytest.fixture
def define(tmp_path: Path) -> Define:
    """Write `model.yaml` and empty files beside it, and read it."""

    def write_and_read(text: str, *files: str) -> ModelDefinition:
        folder = tmp_path / "m" / "3"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.yaml").write_text(text)
        for file in files:
            (folder / file).write_text("")
        return load_model_definition("m", "3", folder)

    return write_and_read


def changed(old: str, new: str, text: str = RIGHT) -> str:
    assert old in text
    return text.replace(old, new, 1)


def with_image(image: str, shape: str = "[3, 8, 6]", dtype: str = "FP32") -> str:
    return changed("FP32\n    shape: [4]", f"{dtype}\n    shape: {shape}\n    image: {image}")


def test_the_digits_model_is_what_its_file_says() -> None:
    definition = load_model_definition("digits", "1", ROOT / "models/digits/1")
    (image,), (scores,) = definition.spec.inputs, definition.spec.outputs
    assert (definition.format, definition.file.name, definition.spec.platform) == (
        "export",
        "model.pt2",
        "export",
    )
    assert image.describe() == "FP32[-1,1,8,8]"
    assert image.image == ImageSpec("L", 8, 8)
    assert scores.labels == Labels(tuple("0123456789"))


def test_a_python_model_has_its_folder_class_and_weights(define: Define, tmp_path: Path) -> None:
    definition = define(RIGHT + "weights: w.safetensors\n", "w.safetensors")
    assert definition.entry == "net:Net"
    assert definition.file == definition.folder == tmp_path / "m/3"
    assert definition.weights == tmp_path / "m/3/w.safetensors"
    assert (definition.spec.name, definition.spec.version) == ("m", "3")


def test_a_sample_is_a_file_beside_it(define: Define, tmp_path: Path) -> None:
    assert define(RIGHT).sample is None
    assert define(RIGHT + "sample: s.json\n", "s.json").sample == tmp_path / "m/3/s.json"
    with pytest.raises(
        ConfigError,
        match=r"model.yaml:11: sample: expected a file 'other.json' beside it; there is none",
    ):
        define(RIGHT + "sample: other.json\n")


@pytest.mark.parametrize("fmt", ["torchscript", "export", "onnx"])
def test_the_other_formats_have_a_file(define: Define, tmp_path: Path, fmt: str) -> None:
    definition = define(changed("python\nclass: net:Net", f"{fmt}\nfile: net.bin"), "net.bin")
    assert definition.file == tmp_path / "m/3/net.bin"
    assert definition.format == fmt


@pytest.mark.parametrize("dtype", ["FP32", "fp32", "float32", "Float32"])
def test_a_dtype_is_named_either_way(define: Define, dtype: str) -> None:
    assert define(changed("FP32", dtype)).spec.inputs[0].datatype.name == "FP32"


def test_free_axes_scalars_and_warmup_sizes_are_kept(define: Define) -> None:
    spec = define(changed("shape: [4]", "shape: [-1, 3]\n    warmup_shape: [7, 3]")).spec
    assert (spec.inputs[0].shape, spec.inputs[0].warmup_shape) == ((-1, 3), (7, 3))
    assert define(changed("shape: [4]", "shape: []")).spec.inputs[0].shape == ()


@pytest.mark.parametrize(
    ("shape", "mode", "height", "width", "first"),
    [
        ("[3, 8, 6]", "rgb", 8, 6, True),
        ("[8, 6, 3]", "rgb", 8, 6, False),
        ("[3, 8, 3]", "rgb", 8, 3, True),
        ("[1, 8, 6]", "grey", 8, 6, True),
        ("[8, 6, 1]", "grey", 8, 6, False),
        ("[8, 6]", "grey", 8, 6, True),
        ("[3, -1, -1]", "rgb", -1, -1, True),
        ("[-1, -1]", "grey", -1, -1, True),
    ],
)
def test_the_size_and_layout_of_a_picture_follow_from_the_shape(
    define: Define, shape: str, mode: str, height: int, width: int, first: bool
) -> None:
    image = define(with_image(f"{{mode: {mode}}}", shape)).spec.inputs[0].image
    assert image is not None
    assert (image.height, image.width, image.channels_first) == (height, width, first)


def test_pixels_of_an_integer_input_are_not_scaled_unless_it_is_said(define: Define) -> None:
    plain = define(with_image("{mode: rgb}", dtype="UINT8")).spec.inputs[0].image
    scaled = define(with_image("{mode: rgb, scale: 0.5}", dtype="UINT8")).spec.inputs[0].image
    assert plain is not None
    assert scaled is not None
    assert (plain.scale, scaled.scale) == (1.0, 0.5)


@pytest.mark.parametrize("written", ["nan", ".nan", "'nan'"])
def test_missing_values_of_an_input_may_be_nan(define: Define, written: str) -> None:
    spec = define(changed("[4]", f"[4]\n    missing: {written}")).spec
    assert spec.inputs[0].missing_is_nan
    assert not define(RIGHT).spec.inputs[0].missing_is_nan


def test_rows_of_an_output_may_be_ragged(define: Define) -> None:
    assert define(changed("[2]", "[-1, 4]\n    ragged: true")).spec.outputs[0].is_ragged


def test_scores_may_be_left_open(define: Define) -> None:
    spec = define(RIGHT + "    labels: [a, b]\n").spec
    assert spec.outputs[0].labels == Labels(("a", "b"), is_declared=False)


def test_scores_may_be_logits(define: Define) -> None:
    spec = define(RIGHT + "    labels: [a, b]\n    scores: logit\n").spec
    assert spec.outputs[0].labels == Labels(("a", "b"), logits=True)


@pytest.mark.parametrize(
    ("text", "line", "setting", "expected", "got"),
    [
        (
            changed("python", "pickle"),
            1,
            "format",
            "'python', 'torchscript', 'export', 'onnx', ",
            "'pickle'",
        ),
        (changed("net:Net", "net.Net"), 2, "class", "module:Class|:", "'net.Net'"),
        (changed("FP32", "floaty"), 5, "inputs.0.dtype", "one of BOOL, .*BYTES", "'floaty'"),
        (changed("FP32", "32"), 5, "inputs.0.dtype", "one of BOOL, .*BYTES", "32"),
        (changed("[4]", "[-2]"), 6, "inputs.0.shape.0", "-1", "-2"),
        (changed("[4]", "[4.5]"), 6, "inputs.0.shape.0", "integer", "4.5"),
        (changed("[4]", "[true]"), 6, "inputs.0.shape.0", "integer", "True"),
        (changed("[4]", "4"), 6, "inputs.0.shape", "", "4"),
        (changed("name: x", "name: ''"), 4, "inputs.0.name", "1 character", "''"),
        (
            changed("name: x", "name: 5"),
            4,
            "inputs.0.name",
            "string",
            "5; quote it to make it text",
        ),
        (
            RIGHT + "    labels: [1, b]\n",
            11,
            "outputs.0.labels.0",
            "string",
            "1; quote it to make it text",
        ),
        (
            RIGHT + "    labels: [no, yes]\n",
            11,
            "outputs.0.labels.0",
            "string",
            'False; YAML reads no, yes, on and off as false and true: quote it, as in "no"',
        ),
        (
            RIGHT + "    labels: [null, b]\n",
            11,
            "outputs.0.labels.0",
            "string",
            "None; quote it to mean the text null",
        ),
        (
            RIGHT + "    labels: [a, b]\n    scores: logits\n",
            12,
            "outputs.0.scores",
            "'probability' or 'logit'",
            "'logits'",
        ),
        (with_image("{mode: rbg}"), 7, "inputs.0.image.mode", "'grey' or 'rgb'", "'rbg'"),
        (with_image("{mode: rgb, std: [0]}"), 7, "inputs.0.image.std.0", "greater than 0", "0"),
        (with_image("{mode: rgb, mean: x}"), 7, "inputs.0.image.mean", "", "'x'"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_setting_expected_and_got(
    define: Define, text: str, line: int, setting: str, expected: str, got: str
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"(?m)^model\.yaml:{line}: {setting}: expected .*({expected}).*; got {got}$",
    ):
        define(text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (RIGHT + "    labels: [a, b, c]\n", 8, ["outputs.0", "labels", "[2]", "'a', 'b', 'c'"]),
        (changed("shape: [2]", "shape: []\n    labels: [a]"), 8, ["outputs.0", "labels", "[]"]),
        (
            with_image("{mode: rgb}", "[4]"),
            4,
            ["inputs.0", "[3, height, width] or [height, width, 3]", "'shape': [4]"],
        ),
        (
            with_image("{mode: grey}", "[3, 8, 8]"),
            4,
            ["inputs.0", "[1, height, width] or [height, width, 1]", "'shape': [3, 8, 8]"],
        ),
        (
            with_image("{mode: rgb}", "[8, 8]"),
            4,
            ["inputs.0", "[3, height, width]", "'shape': [8, 8]"],
        ),
        (
            with_image("{mode: rgb, mean: [1, 2]}"),
            4,
            ["inputs.0", "1 or 3 values of mean", "'mean': [1, 2]"],
        ),
        (with_image("{mode: rgb, std: [1, 2, 3, 4]}"), 4, ["inputs.0", "1 or 3 values", "of std"]),
        (
            with_image("{mode: rgb}", dtype="INT64"),
            4,
            ["inputs.0", "UINT8, FP16, FP32 or FP64", "INT64"],
        ),
        (
            changed("FP32\n    shape: [4]", "INT64\n    shape: [4]\n    missing: nan"),
            4,
            ["FP16, FP32"],
        ),
        (changed("[2]", "[2]\n    ragged: true"), 8, ["axis of -1", "ragged: true"]),
        (
            changed("[4]", "[-1]\n    warmup_shape: [3, 3]"),
            4,
            ["inputs.0", "warmup_shape", "[-1]", "[3, 3]"],
        ),
        (
            changed("[4]", "[-1, 5]\n    warmup_shape: [3, 4]"),
            4,
            ["inputs.0", "warmup_shape", "[-1, 5]", "[3, 4]"],
        ),
    ],
)
def test_settings_of_a_tensor_that_do_not_fit_together_are_refused_with_its_line(
    define: Define, text: str, line: int, words: list[str]
) -> None:
    with pytest.raises(
        ConfigError, match=rf"(?m)^model\.yaml:{line}: .*expected .*; got "
    ) as refusal:
        define(text)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed("class: net:Net\n", ""), ["class: module:Class", "format python"]),
        (
            changed("inputs:\n", "inputs:\n  - {name: x, dtype: FP32, shape: [1]}\n"),
            ["names that differ among inputs", "x"],
        ),
        (
            changed("outputs:\n", "outputs:\n  - {name: y, dtype: FP32, shape: [1]}\n"),
            ["names that differ", "outputs", "y"],
        ),
    ],
)
def test_a_file_whose_settings_do_not_fit_together_is_refused(
    define: Define, text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"^model\.yaml.*expected .*; got ") as refusal:
        define(text)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


@pytest.mark.parametrize("missing", ["format", "inputs", "outputs"])
def test_a_setting_that_must_be_there_is_asked_for_by_name(define: Define, missing: str) -> None:
    values: dict[str, Any] = yaml.safe_load(RIGHT)
    del values[missing]
    with pytest.raises(ConfigError, match=rf"(?m)^model\.yaml.*: {missing} is missing$"):
        define(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("old", "line", "setting"),
    [
        ("name: x\n    ", 4, "inputs.0.name"),
        ("    dtype: FP32\n    shape: [2]\n", 8, "outputs.0.dtype"),
    ],
)
def test_a_setting_that_is_missing_in_a_tensor_has_the_tensors_line(
    define: Define, old: str, line: int, setting: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)^model\.yaml:{line}: {setting} is missing$"):
        define(changed(old, ""))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (changed("class:", "clas:"), "model.yaml:2: unknown setting clas; did you mean class[?]"),
        (
            changed("class:", "max_batch_size:"),
            "model.yaml:2: unknown setting max_batch_size; max_batch_size belongs into config.yaml",
        ),
        (
            changed("dtype:", "dtyp:"),
            "model.yaml:5: unknown setting inputs.0.dtyp; did you mean dtype[?]",
        ),
        (
            changed("shape: [2]", "shpe: [2]"),
            "model.yaml:10: unknown setting outputs.0.shpe; did you mean shape[?]",
        ),
        (
            with_image("{mod: rgb}"),
            "model.yaml:7: unknown setting inputs.0.image.mod; did you mean mode[?]",
        ),
        (
            RIGHT + "zzzzzz: 1\n",
            "model.yaml:11: unknown setting zzzzzz; known here: format, file, class, weights, "
            "inputs, outputs",
        ),
        (
            changed("shape: [4]", "shape: [4]\n    labels: [a, b, c, d]"),
            "model.yaml:7: unknown setting inputs.0.labels; labels belongs to an output$",
        ),
        (RIGHT + "scores: logit\n", "unknown setting scores; scores belongs to an output$"),
        (RIGHT + "    warmup_shape: [1]\n", "outputs.0.warmup_shape; .* belongs to an input$"),
        (RIGHT + "dtype: FP32\n", "dtype belongs to an input or an output$"),
        (
            changed("shape: [4]", "shape: [4]\n    mean: [1]"),
            "mean belongs to `image` of an input$",
        ),
        (RIGHT + "    weights: w.pt\n", "outputs.0.weights; weights belongs to the top$"),
        (
            changed("shape: [4]", "shape: [4]\n    labls: [a]"),
            "did you mean labels[?] labels belongs to an output$",
        ),
        (
            RIGHT + "max_batchsize: 8\n",
            "did you mean max_batch_size[?] max_batch_size belongs into config.yaml",
        ),
        (RIGHT + "format: onnx\n", "model.yaml:11: format is set twice"),
        (
            changed("name: x\n", "name: x\n    name: z\n"),
            "model.yaml:5: inputs.0.name is set twice",
        ),
    ],
)
def test_an_unknown_or_repeated_setting_is_refused_and_the_nearest_one_suggested(
    define: Define, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        define(text)


@pytest.mark.parametrize(
    "text",
    [
        changed("FP32", "floaty"),
        changed("[4]", "[-2]"),
        with_image("{mode: rbg}"),
        changed("dtype:", "dtyp:"),
    ],
)
def test_nothing_that_is_right_is_called_wrong(define: Define, text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        define(text)
    assert "at least 1 item" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "file", "line"),
    [
        (changed("python\nclass: net:Net", "export\nfile: gone.pt2"), "gone.pt2", 2),
        (RIGHT + "weights: gone.safetensors\n", "gone.safetensors", 11),
    ],
)
def test_a_file_that_git_lfs_has_not_fetched_is_named_with_the_command(
    define: Define, tmp_path: Path, text: str, file: str, line: int
) -> None:
    (tmp_path / "m" / "3").mkdir(parents=True)
    (tmp_path / "m" / "3" / file).write_text(
        "version https://git-lfs.github.com/spec/v1\nsize 12345\n"
    )
    with pytest.raises(
        ConfigError, match=rf"yaml:{line}: .*the content of '{file}'; got a .* `git lfs pull`"
    ):
        define(text)


@pytest.mark.parametrize(
    ("text", "file", "line"),
    [
        (changed("python\nclass: net:Net", "export\nfile: gone.pt2"), "gone.pt2", 2),
        (RIGHT + "weights: gone.safetensors\n", "gone.safetensors", 11),
    ],
)
def test_a_file_that_is_not_there_is_named_with_its_line(
    define: Define, text: str, file: str, line: int
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"model\.yaml:{line}: .*expected a file '{file}' beside it; there is none",
    ):
        define(text)


@pytest.mark.parametrize(
    ("fmt", "file"),
    [("torchscript", "net.pt"), ("export", "model.pt2"), ("onnx", "model.onnx")],
)
def test_a_file_that_is_left_out_is_the_only_one_of_its_format(
    define: Define, fmt: str, file: str
) -> None:
    definition = define(changed("python\nclass: net:Net", fmt), file, "notes.txt")
    assert definition.file.name == file


@pytest.mark.parametrize("fmt", ["torchscript", "export", "onnx"])
def test_of_several_files_the_one_that_is_meant_is_asked_for(define: Define, fmt: str) -> None:
    suffix = {"torchscript": "pt", "export": "pt2", "onnx": "onnx"}[fmt]
    with pytest.raises(
        ConfigError,
        match=rf"model\.yaml:1: file: .*format {fmt}; got none: 2 may be meant: "
        rf"write `file: a.{suffix}`, which is there \(or b.{suffix}\)",
    ):
        define(changed("python\nclass: net:Net", fmt), f"a.{suffix}", f"b.{suffix}")


@pytest.mark.parametrize(("fmt", "file"), [("xgboost", "sample.json"), ("lightgbm", "notes.txt")])
def test_a_file_that_may_be_something_else_must_be_named(
    define: Define, fmt: str, file: str
) -> None:
    with pytest.raises(ConfigError, match=rf"got none: write `file: {file}`, which is there"):
        define(changed("python\nclass: net:Net", fmt), file)


def test_a_format_without_any_file_says_what_to_put_there(define: Define) -> None:
    with pytest.raises(
        ConfigError,
        match=r"yaml:1: file: .* format export; got none: put a file .* in \.pt2 beside",
    ):
        define(changed("python\nclass: net:Net", "export"))


def test_a_missing_model_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.yaml: cannot be read"):
        load_model_definition("m", "1", tmp_path)


def test_paths_are_absolute_from_the_start_since_a_model_may_change_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.yaml").write_text(
        "format: python\nclass: model:Model\ninputs: [{name: x, dtype: FP32, shape: [1]}]\n"
        "outputs: [{name: y, dtype: FP32, shape: [1]}]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_model_definition("m", "1", Path("m")).folder == tmp_path / "m"


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([{"name": "x", "dtype": "FP32", "shape": [4], "pad": 0}], "an axis of -1 for `pad`"),
        (
            [
                {"name": "x", "dtype": "FP32", "shape": [-1, -1], "pad": 0},
                {"name": "y", "dtype": "FP32", "shape": [-1], "pad": 0},
            ],
            r"'y' with 2 axes of -1, as 'x' has, which is padded; not \[-1\]",
        ),
        (
            [
                {"name": "x", "dtype": "FP32", "shape": [3, -1, -1], "pad": 0, "mask": "m"},
                {"name": "m", "dtype": "INT64", "shape": [-1]},
            ],
            "the mask of 'x', with shape 2 axes of -1",
        ),
        (
            [
                {"name": "x", "dtype": "FP32", "shape": [3, -1, -1], "pad": 0, "lengths": "n"},
                {"name": "n", "dtype": "INT64", "shape": []},
            ],
            r"the lengths of 'x', with shape \[2\]",
        ),
        ([{"name": "x", "dtype": "INT64", "shape": [-1], "pad": 0.5}], "one value of INT64"),
        ([{"name": "x", "dtype": "FP32", "shape": [-1], "mask": "m"}], "`pad` beside"),
        ([{"name": "x", "dtype": "FP32", "shape": [-1], "warmup_lengths": [8]}], "`pad` beside"),
        (
            [{"name": "x", "dtype": "FP32", "shape": [-1], "pad": 0, "mask": "m"}],
            "`mask` of 'x' to be another input",
        ),
        (
            [
                {"name": "x", "dtype": "FP32", "shape": [-1], "pad": 0, "lengths": "n"},
                {"name": "n", "dtype": "INT64", "shape": [2]},
            ],
            r"with shape \[\] or \[1\]",
        ),
        (
            [
                {"name": "x", "dtype": "FP32", "shape": [-1], "pad": 0, "lengths": "n"},
                {"name": "n", "dtype": "UINT8", "shape": []},
            ],
            "one of INT32, .* for 'n', the lengths of 'x'",
        ),
        (
            [{"name": "x", "dtype": "FP32", "shape": [-1], "pad": 0, "pad_sizes": [8, 4]}],
            "ascending order",
        ),
    ],
)
def test_a_padded_input_that_cannot_be_is_refused_with_what_is_expected(
    tmp_path: Path, inputs: list[dict[str, Any]], expected: str
) -> None:
    file = {
        "format": "python",
        "class": "model:Model",
        "inputs": inputs,
        "outputs": [{"name": "y", "dtype": "FP32", "shape": []}],
    }
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(file))
    with pytest.raises(ConfigError, match=expected):
        load_model_definition("m", "1", tmp_path)


@pytest.mark.parametrize("is_prepared", [False, True])
def test_an_output_that_may_hold_padding_says_whose_length_it_has(
    tmp_path: Path, is_prepared: bool
) -> None:
    padded = {"name": "x", "dtype": "FP32", "shape": [-1], "pad": 0}
    sent = {"name": "t", "dtype": "BYTES", "shape": []} if is_prepared else padded
    output = {"name": "y", "dtype": "FP32", "shape": [2, -1]}
    file = {"format": "python", "class": "model:Model", "inputs": [sent], "outputs": [output]}
    if is_prepared:
        file["prepared"] = [padded]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(file))
    expected = r"`unpad: true` for output 'y'.*`ragged: true`.*; got something else$"
    with pytest.raises(ConfigError, match=expected):
        load_model_definition("m", "1", tmp_path)
    for key in ("unpad", "ragged"):
        said = yaml.safe_dump(file | {"outputs": [output | {key: True}]})
        (tmp_path / "model.yaml").write_text(said)
        assert load_model_definition("m", "1", tmp_path).spec.is_padded
