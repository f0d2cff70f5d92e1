"""From YAML text to values that remember their place, and the layers over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batcher.config.reading import override_from_environment, read_yaml, scalar
from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError

Load = Callable[..., ServerSettings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write `config.yaml` and read it."""

    def write_and_load(
        text: str | bytes,
        environment: dict[str, str] | None = None,
        flags: dict[tuple[str, ...], tuple[str, object]] | None = None,
    ) -> ServerSettings:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(path, environment or {}, flags)

    return write_and_load


def test_every_value_remembers_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# a comment\nport: 1\n\ndefaults:\n  level_weights:\n    - 3\n    - 1\n")
    source = read_yaml(path)
    assert source.origin(("port",)) == "config.yaml:2"
    assert source.origin(("defaults",)) == "config.yaml:4"
    assert source.origin(("defaults", "level_weights", 1)) == "config.yaml:7"


def test_who_changes_what_was_read_changes_no_later_reading(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("defaults: {level_weights: [3, 1]}\n")
    first = read_yaml(path)
    first.values["defaults"]["level_weights"].append(5)
    first.origins.clear()
    second = read_yaml(path)
    assert second.values == {"defaults": {"level_weights": [3, 1]}}
    assert second.origin(("defaults", "level_weights", 1)) == "config.yaml:1"


def test_a_value_that_is_not_there_has_the_line_of_what_is_around_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("port: 1\ndefaults:\n  device: cpu\n")
    source = read_yaml(path)
    assert source.origin(("defaults", "policy")) == "config.yaml:2"
    assert source.origin(("host",)) == "config.yaml"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}\n"])
def test_an_empty_file_is_the_built_in_defaults(load: Load, text: str) -> None:
    assert load(text) == ServerSettings()


def test_no_file_is_the_built_in_defaults() -> None:
    assert load_settings(None, {}) == ServerSettings()


def test_a_merge_key_brings_the_values_of_its_anchor(load: Load) -> None:
    found = load(
        "models:\n  a: &a {path: x, max_batch_size: 8}\n  b: {<<: *a, max_batch_size: 4}\n"
    )
    assert found.models["b"].path == "x"
    assert found.models["b"].max_batch_size == 4


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("port: 1\nhost: [1\n", "config.yaml:3: not YAML"),
        ("port: 1\n\tport: 2\n", "config.yaml:2: not YAML"),
        ("port: 1\n---\nport: 2\n", "config.yaml:2: not YAML: but found another document"),
        (
            "port: 1\nhost: !!python/object/apply:os.system [true]\n",
            "config.yaml:2: not YAML: could not determine a constructor",
        ),
        ("port: 1\nhost: *nowhere\n", "config.yaml:2: not YAML: found undefined alias"),
        ('host: "a\x07b"\n', "config.yaml.*: not YAML"),
        ("- port\n", "config.yaml:1: expected a mapping of settings; got list"),
        ("port\n", "config.yaml:1: expected a mapping of settings; got str"),
        (b"\xff\xfe\x00", "config.yaml: cannot be read: 'utf-8' codec"),
        ("port: 1\nhost: a\nport: 2\n", "config.yaml:3: port is set twice"),
        ("models:\n  m:\n    path: a\n    path: b\n", "config.yaml:4: models.m.path is set twice"),
        ("models:\n  m: {}\n  m: {}\n", "config.yaml:3: models.m is set twice"),
        ("port: 1\n? [a, b]\n: 1\n", "config.yaml:2: .*"),
        ("port: 1\n? {a: b}\n: 1\n", "config.yaml:2: .*"),
        ("port: 1\nhost: &a [*a]\n", "config.yaml:2: .*"),
        ("port: 1\nhost: 2001-13-45\n", "config.yaml:2: .*"),
        ('host: "a\\uD800"\n', r"config.yaml:1: expected whole characters.*'a\\ud800'"),
        ('models: {"\\uDCFF": {path: x}}\n', "config.yaml:1: expected whole characters"),
        ("port: 0x_\n", "config.yaml:1: .*"),
        ("defaults:\n  port: 0b_\n", "config.yaml:2: .*"),
    ],
)
def test_a_file_that_is_no_mapping_of_settings_is_refused_with_file_and_line(
    load: Load, text: str | bytes, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(text)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refusal:
        load_settings(tmp_path / name, {})
    assert str(tmp_path) in str(refusal.value)


@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from(list("abp:-[]{}&*!|>?'\"# \n\t,%@`1.")), max_size=30).map("".join)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_settings_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        found = load_settings(path, {})
    except ConfigError as err:
        refusal = str(err)
    else:
        refusal = str(path)
        assert isinstance(found, ServerSettings)
    assert "config.yaml" in refusal


def test_environment_goes_over_the_file_and_flags_go_over_the_environment(load: Load) -> None:
    text, environment = (
        "port: 1\nhost: file\ndrain_timeout_s: 1\n",
        {"BATCHER_PORT": "2", "BATCHER_HOST": "environment"},
    )
    found = load(text, environment, {("port",): ("--port", 3)})
    assert (found.port, found.host, found.drain_timeout_s) == (3, "environment", 1)


def test_two_underscores_step_inwards(load: Load) -> None:
    environment = {
        "BATCHER_DEFAULTS__MAX_BATCH_SIZE": "32",
        "BATCHER_MODELS__DIGITS__DEVICE": "cpu",
    }
    found = load("defaults: {max_batch_size: 8, policy: delay}\n", environment)
    assert (found.defaults.max_batch_size, found.defaults.policy) == (32, "delay")
    assert found.models["digits"].device == "cpu"


def test_a_variable_reaches_a_model_whose_name_has_capitals(load: Load) -> None:
    found = load(
        "models:\n  ResNet: {max_batch_size: 8}\n", {"BATCHER_MODELS__ResNet__MAX_BATCH_SIZE": "32"}
    )
    assert list(found.models) == ["ResNet"]
    assert found.models["ResNet"].max_batch_size == 32


def test_other_variables_are_left_alone(load: Load) -> None:
    assert load("", {"XBATCHER_PORT": "2", "batcher_port": "3"}) == ServerSettings()


def test_a_port_of_the_environment_is_taken_and_overridden_by_a_variable_of_ours(
    load: Load,
) -> None:
    found = load("port: 9000\n", {"PORT": "5000"})
    assert (found.host, found.port) == ("127.0.0.1", 5000)
    assert load("", {"PORT": "5000", "BATCHER_PORT": "6000"}).port == 6000


@pytest.mark.parametrize("platform", ["DYNO", "GAE_SERVICE", "K_SERVICE"])
def test_a_port_that_a_platform_has_set_is_listened_on_from_outside(
    load: Load, platform: str
) -> None:
    found = load("", {"PORT": "5000", platform: "web.1"})
    assert (found.host, found.port) == ("0.0.0.0", 5000)


def test_a_cloud_that_names_a_port_of_its_own_is_asked_first(load: Load) -> None:
    assert load("", {"PORT": "5000", "AIP_HTTP_PORT": "7000"}).port == 7000


def test_a_port_that_is_none_is_named(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"^environment variable PORT: port: expected a valid"):
        load("", {"PORT": "tcp://10.0.0.7:80"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("", None),
        ("abc", "abc"),
        ("64MiB", "64MiB"),
        ("[1", "[1"),
        ("0.5", 0.5),
    ],
)
def test_a_variable_is_read_as_yaml_would_read_it(text: str, expected: object) -> None:
    assert scalar(text) == expected


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_text_of_a_variable_is_a_value(text: str) -> None:
    scalar(text)


@pytest.mark.parametrize(
    ("environment", "flags", "complaint"),
    [
        (
            {"BATCHER_PORT": "abc"},
            {},
            "^environment variable BATCHER_PORT: port: expected a valid integer.*; got 'abc'$",
        ),
        (
            {"BATCHER_DEFAULTS__MAX_BATCH_SIZE": "0"},
            {},
            "^environment variable BATCHER_DEFAULTS__MAX_BATCH_SIZE: defaults.max_batch_size: "
            "expected .* 1; got 0$",
        ),
        (
            {"BATCHER_PROT": "1"},
            {},
            "^environment variable BATCHER_PROT: unknown setting prot; did you mean port[?]$",
        ),
        (
            {"BATCHER_PORT": "2"},
            {("port",): ("--port", -1)},
            "^--port: port: expected .* 0; got -1$",
        ),
        (
            {"BATCHER_PORT": "abc"},
            {("host",): ("--host", "a")},
            "^environment variable BATCHER_PORT: port",
        ),
        (
            {},
            {("defaults", "policy"): ("--set", "lazy")},
            "^--set: defaults.policy: expected 'eager', 'delay', 'slo' or 'deferred'; got 'lazy'$",
        ),
        ({}, {}, "^config.yaml:2: port: expected a valid integer.*; got 'x'$"),
    ],
)
def test_a_wrong_value_is_refused_with_the_layer_it_came_from(
    load: Load,
    environment: dict[str, str],
    flags: dict[tuple[str, ...], tuple[str, object]],
    complaint: str,
) -> None:
    text = "# here\nport: x\n" if not (environment or flags) else "port: 1\n"
    with pytest.raises(ConfigError, match=complaint):
        load(text, environment, flags)


def test_a_right_value_from_the_environment_hides_a_wrong_one_in_the_file(load: Load) -> None:
    assert load("port: x\n", {"BATCHER_PORT": "2"}).port == 2


def test_a_variable_may_set_what_the_file_left_empty(load: Load) -> None:
    assert load("defaults:\n", {"BATCHER_DEFAULTS__POLICY": "delay"}).defaults.policy == "delay"


def test_variables_are_laid_over_in_an_order_that_does_not_depend_on_the_environment(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    found = []
    for names in (["BATCHER_A", "BATCHER_A__B"], ["BATCHER_A__B", "BATCHER_A"]):
        source = read_yaml(path)
        override_from_environment(source, dict.fromkeys(names, "1"))
        found.append(source.values)
    assert found[0] == found[1]


def test_aliases_of_aliases_are_refused_before_they_are_followed(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    file = tmp_path / "model.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"model\.yaml: expected at most 200000 values, aliases"):
        read_yaml(file)
