"""`config.yaml`: its settings, their defaults and the reasons, and how wrong values are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from batcher.config.model_settings import ModelOverrides, ModelSettings
from batcher.config.quota import Quota
from batcher.config.settings import ServerSettings, load_settings, share_threads
from batcher.errors import ConfigError
from tests.config.conftest import Load

ROOT = Path(__file__).parents[2]


def lines_of_defaults() -> list[str]:
    lines = (ROOT / "config.yaml").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def leaves(model: BaseModel, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return every setting of a model of settings by its path."""
    found: dict[tuple[str, ...], Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        found.update(
            leaves(value, (*path, name)) if isinstance(value, BaseModel) else {(*path, name): value}
        )
    return found


def test_the_configuration_in_the_repository_is_right_and_holds_the_built_in_defaults() -> None:
    assert leaves(load_settings(ROOT / "config.yaml", {})) == leaves(ServerSettings())


def test_the_configuration_in_the_repository_names_every_setting() -> None:
    written = yaml.safe_load((ROOT / "config.yaml").read_text())
    named = {(key,) for key in written if key != "defaults"} | {
        ("defaults", key) for key in written["defaults"]
    }
    assert named == set(leaves(ServerSettings()))


@pytest.mark.parametrize("line", lines_of_defaults())
def test_every_default_has_a_sentence_of_reason_on_its_line(line: str) -> None:
    _, _, reason = line.partition(" # ")
    assert len(reason.split()) >= 3


def test_every_setting_is_explained_in_the_docstring_of_its_section() -> None:
    for section in (ServerSettings, ModelSettings, ModelOverrides, Quota):
        documented = section.__doc__ or ""
        for name in section.__annotations__:
            assert f"        {name}: " in documented


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ServerSettings().port = 1  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1024", 1024),
        ("64MiB", 64 << 20),
        ("1 KiB", 1024),
        ("2kB", 2000),
        ("'3'", 3),
        ("1GiB", 1 << 30),
    ],
)
def test_bytes_are_written_as_a_number_or_with_a_unit(load: Load, text: str, value: int) -> None:
    assert load(f"max_body_bytes: {text}\n").max_body_bytes == value


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_device_is_named_as_pytorch_names_it(load: Load, device: str) -> None:
    assert load(f"defaults: {{device: '{device}'}}\n").defaults.device == device


@pytest.mark.parametrize(
    ("text", "line", "setting", "expected", "got"),
    [
        ("port: abc", 1, "port", "integer", "'abc'"),
        ("\nport: 8080.5", 2, "port", "integer", "8080.5"),
        ("port: -1", 1, "port", "0", "-1"),
        ("port: 65536", 1, "port", "65535", "65536"),
        ("port: true", 1, "port", "integer", "True"),
        ("host: 5", 1, "host", "string", "5; quote it to make it text"),
        ("host: no", 1, "host", "string", 'False; YAML reads no, .*: quote it, as in "no"'),
        ("host: null", 1, "host", "string", "None; quote it to mean the text null"),
        ("drain_timeout_s: 0", 1, "drain_timeout_s", "greater than 0", "0"),
        ("drain_timeout_s: .nan", 1, "drain_timeout_s", "finite", "nan"),
        ("drain_timeout_s: .inf", 1, "drain_timeout_s", "", "inf"),
        ("drain_timeout_s: 86401", 1, "drain_timeout_s", "86400", "86401"),
        ("drain_timeout_s: true", 1, "drain_timeout_s", "number", "True"),
        ("idle_timeout_s: 5s", 1, "idle_timeout_s", "number", "'5s'"),
        ("max_body_bytes: lots", 1, "max_body_bytes", "", "'lots'"),
        ("max_body_bytes: -5", 1, "max_body_bytes", "", "-5"),
        ("max_body_bytes: 0", 1, "max_body_bytes", "1", "0"),
        ("max_connections: 0", 1, "max_connections", "1", "0"),
        ("max_connections: true", 1, "max_connections", "integer", "True"),
        ("cpu_pool_threads: 0", 1, "cpu_pool_threads", "1", "0"),
        ("access_log: maybe", 1, "access_log", "boolean", "'maybe'"),
        ("access_log: 2", 1, "access_log", "boolean", "2"),
        ("defaults:\n  device: gpu", 2, "defaults.device", "cuda", "'gpu'"),
        ("defaults:\n  device: cuda:-1", 2, "defaults.device", "cuda", "'cuda:-1'"),
        ("defaults:\n  policy: lazy", 2, "defaults.policy", "'slo' or 'deferred'", "'lazy'"),
        ("defaults:\n  warmup: 'please'", 2, "defaults.warmup", "boolean", "'please'"),
        ("defaults:\n  pipeline_depth: 3", 2, "defaults.pipeline_depth", "2", "3"),
        ("defaults:\n  level_weights: []", 2, "defaults.level_weights", "1", r"\[\]"),
        ("defaults:\n  level_weights: 3", 2, "defaults.level_weights", "a list", "3"),
        (
            "defaults:\n  level_weights: [1, 0]",
            2,
            "defaults.level_weights.1",
            "greater than 0",
            "0",
        ),
        (
            "defaults:\n  level_weights:\n  - 1\n  - x",
            4,
            "defaults.level_weights.1",
            "number",
            "'x'",
        ),
        ("defaults:\n  preferred_batch_sizes: 8", 2, "defaults.preferred_batch_sizes", "", "8"),
        ("defaults: 5", 1, "defaults", "dictionary", "5"),
        ("models:\n  m: 5", 2, "models.m", "dictionary", "5"),
        ("models:\n  m:\n    max_batch_size: 0", 3, "models.m.max_batch_size", "1", "0"),
        ("models:\n  m:\n    path: 7", 3, "models.m.path", "string", "7; quote it to make it text"),
        ("models: [m]", 1, "models", "mapping", r"\['m'\]"),
        (
            "models:\n  m:\n    preferred_batch_sizes: [1, 100]",
            3,
            "models.m.preferred_batch_sizes",
            "max_batch_size .64.",
            r"\[100\]",
        ),
        (
            "defaults:\n  preferred_batch_sizes: [65]",
            2,
            "defaults.preferred_batch_sizes",
            "max_batch_size .64.",
            r"\[65\]",
        ),
        (
            "defaults:\n  max_batch_size: 8\n  default_priority: 5",
            3,
            "defaults.default_priority",
            "1 to 3",
            "5",
        ),
        ("models:\n  m: {level_weights: [1]}", 2, "models.m.default_priority", "1 to 1", "2"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_setting_expected_and_got(
    load: Load, text: str, line: int, setting: str, expected: str, got: str
) -> None:
    pattern = rf"^config\.yaml:{line}: {setting}: expected .*{expected}.*; got {got}$"
    with pytest.raises(ConfigError, match=pattern):
        load(text + "\n")


def test_every_model_whose_settings_contradict_each_other_is_named(load: Load) -> None:
    with pytest.raises(ConfigError) as refusal:
        load("models:\n  m: {default_priority: 9}\n  n: {preferred_batch_sizes: [99]}\n  o: {}\n")
    reasons = str(refusal.value).splitlines()
    assert len(reasons) == 2
    assert reasons[0].startswith("config.yaml:2: models.m.default_priority: ")
    assert reasons[1].startswith("config.yaml:3: models.n.preferred_batch_sizes: ")


@pytest.mark.parametrize(
    "text",
    [
        "defaults: {device: gpu}",
        "defaults: {level_weights: []}",
        "max_body_bytes: lots",
        "access_log: maybe",
        "port: abc",
        "drain_timeout_s: .nan",
    ],
)
def test_what_was_expected_is_said_in_a_sentence(load: Load, text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(text)
    assert not any(
        words in str(refusal.value)
        for words in ("expected String should", "expected Tuple should", "expected could not")
    )


def test_every_wrong_value_has_its_own_line_in_the_message(load: Load) -> None:
    with pytest.raises(ConfigError) as refusal:
        load("port: -1\nhost: 3\ndefaults: {policy: lazy}\n")
    assert sorted(line.split(": ")[1] for line in str(refusal.value).splitlines()) == [
        "defaults.policy",
        "host",
        "port",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot: 1", "config.yaml:1: unknown setting prot; did you mean port[?]"),
        (
            "\nmax_body_byte: 1",
            "config.yaml:2: unknown setting max_body_byte; did you mean max_body_bytes[?]",
        ),
        ("Port: 1", "config.yaml:1: unknown setting Port; did you mean port[?]"),
        (
            "max_batch_size: 8",
            "config.yaml:1: unknown setting max_batch_size; max_batch_size belongs below "
            "`defaults` .* --set defaults.max_batch_size=",
        ),
        ("trusted: true", "unknown setting trusted; trusted belongs below `defaults`"),
        ("defaults: {port: 1}", "unknown setting defaults.port; .* to the top of config.yaml"),
        (
            "models: {m: {format: onnx}}",
            "format; format belongs into the model.yaml of the",
        ),
        (
            "defaults:\n  max_batch: 1",
            "config.yaml:2: unknown setting defaults.max_batch; did you mean max_batch_size[?]",
        ),
        (
            "models:\n  m:\n    max_batch: 1",
            "config.yaml:3: unknown setting models.m.max_batch; did you mean max_batch_size[?]",
        ),
        (
            "models:\n  m:\n    pth: x",
            "config.yaml:3: unknown setting models.m.pth; did you mean path[?]",
        ),
        ("max_batch_size: 1", "unknown setting max_batch_size"),
        (
            "max_batchsize: 8",
            "did you mean max_batch_size[?] max_batch_size belongs below `defaults` for all models",
        ),
        ("defaults: {prt: 1}", "did you mean port[?] port belongs to the top of config.yaml"),
        ("default: {max_batch_size: 8}", "unknown setting default; did you mean defaults[?]$"),
        ("labels: [a]", "labels of classes belong into the model.yaml of the model, at an output$"),
        ("defaults: {scores: logit}", "belongs into the model.yaml of the model, .* at an output$"),
        ("models: {m: {warmup_shape: [1]}}", "belongs into the model.yaml .* at an input$"),
        ("models: {m: {shape: [1]}}", "into the model.yaml .* at an input or an output$"),
        ("mean: [1]", "belongs into the model.yaml .* at `image` of an input$"),
        ("models: {m: {lables: [a]}}", "did you mean labels[?]$"),
        ("burst_rows: 3", "burst_rows belongs below a key of `quotas`$"),
        ("path: x", "path belongs below `models` and the model's name$"),
        ("zzzzzz: 1", "unknown setting zzzzzz; known here: host, port, .*models"),
        (
            "models:\n  m:\n    zzzzzz: 1",
            "unknown setting models.m.zzzzzz; known here: versions, .*path",
        ),
    ],
)
def test_an_unknown_setting_is_refused_and_the_nearest_one_suggested(
    load: Load, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(text + "\n")


def test_a_setting_of_a_models_section_is_suggested_at_the_top_only_if_it_is_known_there(
    load: Load,
) -> None:
    with pytest.raises(ConfigError) as refusal:
        load("path: x\n")
    assert "did you mean path" not in str(refusal.value)


def test_the_settings_of_a_model_are_the_defaults_with_its_own_over_them(load: Load) -> None:
    settings = load(
        "defaults: {max_batch_size: 8, policy: delay}\nmodels:\n  m: {max_batch_size: 4, path: "
        "elsewhere}\n"
    )
    assert settings.for_model("m") == ModelSettings(max_batch_size=4, policy="delay")
    assert settings.for_model("other") == ModelSettings(max_batch_size=8, policy="delay")


def test_a_model_may_set_a_value_back_to_the_built_in_default(load: Load) -> None:
    settings = load("defaults: {max_batch_size: 8}\nmodels:\n  m: {max_batch_size: 64}\n")
    assert settings.for_model("m").max_batch_size == 64


def test_settings_that_fit_alone_and_not_together_are_refused_for_the_model_that_mixes_them(
    load: Load,
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"models\.m\.preferred_batch_sizes: expected at most max_batch_size \(4\); got \[8\]",
    ):
        load("defaults: {preferred_batch_sizes: [8]}\nmodels:\n  m: {max_batch_size: 4}\n")


@pytest.mark.parametrize(
    ("available", "models", "threads"), [(8, 3, 2), (8, 0, 7), (1, 1, 1), (2, 5, 1)]
)
def test_models_share_the_cores_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, available: int, models: int, threads: int
) -> None:
    monkeypatch.setattr("batcher.config.settings.cores", lambda: available)
    assert share_threads(ModelSettings(), models).torch_threads == threads
    assert share_threads(ModelSettings(torch_threads=9), models).torch_threads == 9
