"""Finding the models on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError
from batcher.serving.repository.folders import define, find_models
from batcher.serving.repository.listing import MAX_LEFT_OUT, ModelFolder

ROOT = Path(__file__).parents[3]


def make(base: Path, *folders: str) -> None:
    """Make version folders, each with a `model.yaml`."""
    for folder in folders:
        (base / folder).mkdir(parents=True)
        (base / folder / "model.yaml").write_text("")


def found(base: Path, **settings: Any) -> list[tuple[str, str, str]]:
    """Return name, version and place of every version that is found."""
    models = find_models(ServerSettings(**settings), base).folders
    return [(model.name, model.version, str(model.folder.relative_to(base))) for model in models]


def test_the_digits_model_of_the_repository_is_found() -> None:
    listing = find_models(ServerSettings(), ROOT)
    assert ModelFolder("digits", "1", ROOT / "models/digits/1") in listing.folders


def test_every_version_of_every_model_is_found_in_the_order_of_names_and_numbers(
    tmp_path: Path,
) -> None:
    make(tmp_path, "models/b/1", "models/a/10", "models/a/9", "models/a/2")
    assert [(name, version) for name, version, _ in found(tmp_path)] == [
        ("a", "2"),
        ("a", "9"),
        ("a", "10"),
        ("b", "1"),
    ]


def test_leading_zeros_are_no_part_of_a_version(tmp_path: Path) -> None:
    make(tmp_path, "models/a/007")
    assert found(tmp_path) == [("a", "7", "models/a/007")]


def test_a_version_that_settings_name_and_that_is_not_there_is_told(tmp_path: Path) -> None:
    make(tmp_path, "models/a/1", "models/a/2", "models/b/1")
    own = {"labels": {"stable": 2, "new": 10}, "shadow": {"version": 9}}
    listing = find_models(ServerSettings(models={"a": own}), tmp_path)
    first, second = listing.warnings()
    assert "models.a: version 9, which labels, traffic, shadow or canary name" in first
    assert "version 10" in second
    assert "of this model there is 1, 2" in second


def test_a_model_with_two_folders_for_one_version_is_left_out_and_others_serve(
    tmp_path: Path,
) -> None:
    make(tmp_path, "models/a/1", "models/a/01", "models/b/1")
    assert found(tmp_path) == [("b", "1", "models/b/1")]
    listing = find_models(ServerSettings(), tmp_path)
    assert "expected one folder a version" in listing.unread["a", ""]
    with pytest.raises(ConfigError, match=r"models.a: .* expected one folder a version"):
        find_models(ServerSettings(models={"a": {}}), tmp_path)


@pytest.mark.parametrize(
    "folder",
    ["models/a/v1", "models/a/1.0", "models/a/-1", "models/a/.1", "models/a/latest"],
)
def test_a_folder_whose_name_is_no_number_is_no_version(tmp_path: Path, folder: str) -> None:
    make(tmp_path, folder, "models/b/1")
    assert found(tmp_path) == [("b", "1", "models/b/1")]


def test_a_folder_with_a_model_yaml_of_its_own_is_version_1(tmp_path: Path) -> None:
    make(tmp_path, "models/a", "models/b/1", "elsewhere")
    (tmp_path / "models/a/weights").mkdir()
    assert found(tmp_path, models={"c": {"path": "elsewhere"}}) == [
        ("a", "1", "models/a"),
        ("b", "1", "models/b/1"),
        ("c", "1", "elsewhere"),
    ]


def test_numbered_versions_come_before_a_model_yaml_beside_them(tmp_path: Path) -> None:
    make(tmp_path, "models/a", "models/a/3")
    assert found(tmp_path) == [("a", "3", "models/a/3")]


MISPLACED = [
    ("a/v1/model.yaml", "a", "got 'v1': rename it to 1"),
    ("a/v12/model.yaml", "a", "got 'v12': rename it to 12"),
    ("a/latest/model.yaml", "a", "got 'latest': rename it to 1"),
    ("a/net/model.yaml", "a", "rename it to 1, or serve the folder that it is in"),
    ("a/net/1/model.yaml", "a", "got a folder of models, such as 'net': serve it with"),
    ("a/model_yaml.md", "a", "expected a file model.yaml; there is none"),
    ("a/1/model.yml", "a", "1: expected a file model.yaml; got 'model.yml': rename it"),
    ("a/1/Model.yaml", "a", "got 'Model.yaml': rename it"),
    ("a/model.yaml.txt", "a", "got 'model.yaml.txt': rename it"),
    ("a/1/net.onnx", "a", "beside 'net.onnx'; there is none: write one, as `batcher init` does"),
    ("a/net.pt2", "a", "beside 'net.pt2'; there is none"),
    ("a/1/notes", "a", "1: expected a file model.yaml; there is none"),
    ("b/2/net.onnx", "b/2", "beside 'net.onnx'"),
    ("b/v2/model.yaml", "b/v2", "got 'v2': rename it to 2"),
    ("1/model.yaml", "1", "got '1', a name of versions: serve the folder above it"),
    ("v2/model.yaml", "v2", "got 'v2', a name of versions: rename it to 2, and serve the folder"),
    ("model.yml", "model.yml", "expected a file model.yaml; got 'model.yml': rename it"),
    ("net.onnx", "net.onnx", "got a file: serve it with `batcher serve models/net.onnx`"),
    ("model.yaml", "model.yaml", "this repository is the folder of one"),
]


@pytest.mark.parametrize(("file", "title", "reason"), MISPLACED, ids=[row[0] for row in MISPLACED])
def test_what_is_laid_out_wrongly_is_named_with_its_reason(
    tmp_path: Path, file: str, title: str, reason: str
) -> None:
    make(tmp_path, "models/b/1")
    path = tmp_path / "models" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    listing = find_models(ServerSettings(), tmp_path)
    assert [(each.name, each.version) for each in listing.folders] == [("b", "1")]
    assert list(listing.left_out) == [title]
    assert reason in listing.left_out[title]
    assert listing.warnings() == [
        f"{title} in the repository is left out: {listing.left_out[title]}"
    ]


def test_a_file_below_the_working_directory_is_named_as_a_command_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "deep/models/b/1")
    (tmp_path / "deep" / "models" / "net.onnx").write_text("")
    monkeypatch.chdir(tmp_path)
    listing = find_models(ServerSettings(), tmp_path / "deep")
    assert "`batcher serve deep/models/net.onnx`" in listing.left_out["net.onnx"]


@pytest.mark.parametrize(
    "file", [".git/config", "__pycache__/a.pyc", "README.md", "lost+found/1", "b/1/more/x"]
)
def test_what_no_model_was_meant_to_be_is_not_named(tmp_path: Path, file: str) -> None:
    make(tmp_path, "models/b/1")
    path = tmp_path / "models" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert find_models(ServerSettings(), tmp_path).warnings() == []


@pytest.mark.parametrize("name", [".digits.new", "lost+found", "__pycache__", "_old"])
def test_a_folder_that_is_passed_over_is_no_model_even_with_versions(
    tmp_path: Path, name: str
) -> None:
    make(tmp_path, "models/b/1", f"models/{name}/1")
    listing = find_models(ServerSettings(), tmp_path)
    assert [folder.name for folder in listing.folders] == ["b"]
    # Whoever names it so may have meant a model.
    assert [key[0] for key in listing.misplaced] == [name] * name.startswith("_")


def test_a_folder_that_is_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "models/a").mkdir(parents=True)
    assert find_models(ServerSettings(), tmp_path).left_out == {
        "a": "expected a file model.yaml; the folder is empty"
    }


def test_clients_read_of_some_folders_that_are_left_out_and_the_log_has_all(tmp_path: Path) -> None:
    for number in range(MAX_LEFT_OUT + 5):
        (tmp_path / f"models/m{number}").mkdir(parents=True)
    listing = find_models(ServerSettings(), tmp_path)
    assert len(listing.left_out) == MAX_LEFT_OUT
    assert len(listing.warnings()) == MAX_LEFT_OUT + 5


def test_the_error_for_a_model_that_is_named_says_why_it_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "models/a/v1", "models/b/1")
    for settings in ({"models": {"a": {}}}, {"models": {"a": {"path": "models/a"}}}):
        with pytest.raises(ConfigError, match="got 'v1': rename it to 1"):
            find_models(ServerSettings.model_validate(settings), tmp_path)


def test_a_version_without_a_model_yaml_and_files_beside_models_are_passed_over(
    tmp_path: Path,
) -> None:
    make(tmp_path, "models/a/1")
    (tmp_path / "models/a/2").mkdir()
    (tmp_path / "models/empty").mkdir()
    (tmp_path / "models/README.md").write_text("")
    (tmp_path / "models/a/3").write_text("a file")
    assert found(tmp_path) == [("a", "1", "models/a/1")]


def test_an_empty_or_missing_default_repository_holds_no_models(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    (tmp_path / "models").mkdir()
    assert found(tmp_path) == []


def test_a_path_of_its_own_wins_over_the_repository(tmp_path: Path) -> None:
    make(tmp_path, "models/a/1", "elsewhere/new/4")
    assert found(tmp_path, models={"a": {"path": "elsewhere/new"}}) == [
        ("a", "4", "elsewhere/new/4")
    ]


def test_a_model_outside_the_repository_is_found_by_its_path(tmp_path: Path) -> None:
    make(tmp_path, "models/a/1", "elsewhere/2")
    assert found(tmp_path, models={"b": {"path": "elsewhere"}}) == [
        ("a", "1", "models/a/1"),
        ("b", "2", "elsewhere/2"),
    ]


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1")
    # as from a file
    models: Any = {"a": {"path": str(tmp_path / "elsewhere")}}
    settings = ServerSettings(models=models)
    assert find_models(settings, Path("/nowhere")).folders == [
        ModelFolder("a", "1", tmp_path / "elsewhere/1")
    ]


def test_another_repository_is_relative_to_the_configuration_file(tmp_path: Path) -> None:
    make(tmp_path, "served/a/1", "models/b/1")
    assert found(tmp_path, model_repository="served") == [("a", "1", "served/a/1")]


def test_a_model_may_have_settings_without_a_path(tmp_path: Path) -> None:
    make(tmp_path, "models/a/1")
    assert found(tmp_path, models={"a": {"max_batch_size": 4}}) == [("a", "1", "models/a/1")]


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        (
            "models:\n  nope: {max_batch_size: 4}\n",
            "config.yaml:2: models.nope",
            ["no such model", "a, b"],
        ),
        (
            "models:\n  nope: {path: empty}\n",
            "config.yaml:2: models.nope",
            ["version folders", "model.yaml", "empty"],
        ),
        ("models:\n  nope: {path: gone}\n", "config.yaml:2: models.nope", ["gone"]),
        (
            "port: 1\nmodel_repository: gone\n",
            "config.yaml:2: model_repository",
            ["folder", "gone"],
        ),
    ],
)
def test_a_model_that_is_nowhere_is_refused_with_file_line_and_setting(
    tmp_path: Path, text: str, start: str, words: list[str]
) -> None:
    make(tmp_path, "models/a/1", "models/b/1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "config.yaml").write_text(text)
    settings = load_settings(tmp_path / "config.yaml", {})
    with pytest.raises(ConfigError) as refusal:
        find_models(settings, tmp_path)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert str(refusal.value).startswith(start)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a/b", "`/` separates"),
        ("", "it is empty"),
        ("..", "a step up"),
        (".", "a step up"),
        ("a\nb", "control characters"),
        ("\udcff", "it is not UTF-8"),
        ("x" * 256, "more than 255 bytes"),
    ],
)
def test_a_name_that_no_path_can_hold_is_refused_with_the_reason(
    tmp_path: Path, name: str, fault: str
) -> None:
    make(tmp_path, "elsewhere/1")
    settings = ServerSettings(models={name: {"path": "elsewhere"}})
    with pytest.raises(ConfigError, match=f"models: expected names .* {fault}") as raised:
        find_models(settings, tmp_path)
    str(raised.value).encode()  # it can be written to a log


def test_a_model_whose_folder_is_no_utf8_is_left_out_and_others_serve(tmp_path: Path) -> None:
    stranger = tmp_path / "models" / os.fsdecode(b"m\xff")
    stranger.mkdir(parents=True)
    assert find_models(ServerSettings(), tmp_path).folders == []
    make(stranger, "1")
    make(tmp_path, "models/b/1")
    listing = find_models(ServerSettings(), tmp_path)
    assert [folder.name for folder in listing.folders] == ["b"]
    assert any(r"got 'm\udcff': it is not UTF-8" in each for each in listing.warnings())


@pytest.mark.parametrize("name", ["a b", "Größe", "100%", "a.b-c_d", "a\\b", "q?x#y"])
def test_other_names_are_fine(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"models/{name}/1")
    assert [model.name for model in find_models(ServerSettings(), tmp_path).folders] == [name]


class TestUnreadable:
    """A link that leads to itself cannot be read, whoever asks."""

    def loop(self, path: Path) -> None:
        path.symlink_to(path.name)

    def test_what_cannot_be_read_is_left_out_and_named(self, tmp_path: Path) -> None:
        make(tmp_path, "models/a/1", "models/b/2")
        self.loop(tmp_path / "models/lost")
        (tmp_path / "models/gone").symlink_to("nowhere")
        self.loop(tmp_path / "models/b/1")
        (tmp_path / "models/README").write_text("a file is no model")
        listing = find_models(ServerSettings(), tmp_path)
        assert [(each.name, each.version) for each in listing.folders] == [("a", "1"), ("b", "2")]
        assert listing.unread.keys() == {("lost", ""), ("gone", ""), ("b", "1")}
        warnings = listing.warnings()
        assert (
            f"gone in the repository is left out: {tmp_path}/models/gone is a link"
            in warnings[list(listing.unread).index(("gone", ""))]
        )
        assert "Too many levels of symbolic links" in "".join(warnings)
        assert any(warning.startswith("b/1 in the repository") for warning in warnings)

    @pytest.mark.parametrize(
        "text", ["models:\n  lost: {max_batch_size: 2}\n", "models:\n  lost: {path: models/lost}\n"]
    )
    def test_a_model_that_is_named_must_be_readable(self, tmp_path: Path, text: str) -> None:
        make(tmp_path, "models/a/1")
        self.loop(tmp_path / "models/lost")
        (tmp_path / "config.yaml").write_text(text)
        settings = load_settings(tmp_path / "config.yaml", {})
        with pytest.raises(ConfigError, match="Too many levels") as refusal:
            find_models(settings, tmp_path)
        assert str(refusal.value).startswith("config.yaml:2: models.lost: expected")

    def test_a_repository_that_cannot_be_listed_is_an_error_with_its_setting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        make(tmp_path, "models/a/1")
        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(ConfigError, match=r"model_repository: .* can be read: .*denied"):
            find_models(ServerSettings(), tmp_path)


def test_a_name_in_model_yaml_that_no_file_can_have_is_an_error_of_that_model(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.yaml").write_text(f"format: onnx\nfile: {'x' * 5000}\n")
    with pytest.raises(ConfigError, match=r"expected files that can be read; .* too long"):
        define(ModelFolder("m", "1", tmp_path), False)
