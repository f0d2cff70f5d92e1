"""Files of Triton's: each field is mapped, or named with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batcher.config.model_file import load_model_definition
from batcher.config.settings import ServerSettings
from batcher.config.triton import model_config
from batcher.config.triton.model_config import read_config, settings_of
from batcher.config.triton.tensors import MAX_LABELS_BYTES
from batcher.config.triton.text_format import MAX_DEPTH, parse
from batcher.errors import ConfigError
from batcher.serving.repository.folders import find_models, settings_for
from batcher.serving.repository.reading import served
from batcher.serving.repository.source import source_of
from tests.config.triton.reading import CONFIGS, outcome
from tests.support.graphs import graph_bytes, node, value
from tests.support.model_folders import Folders, answers, floats
from tests.support.model_folders import folders as folders

EXPECTED = yaml.safe_load((CONFIGS.parent / "expected.yaml").read_text())
NAMES = sorted(path.stem for path in CONFIGS.glob("*.pbtxt"))
MALFORMED = {"misspelt", "wrong_values", "not_closed", "kind_unknown"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_or_refused_by_field_and_line(tmp_path: Path, name: str) -> None:
    assert outcome(name, tmp_path) == EXPECTED[name]


def test_fifty_files_are_read_and_each_refusal_has_field_and_line() -> None:
    assert len(NAMES) == len(EXPECTED) >= 50
    refusals = [line for each in EXPECTED.values() for line in each.get("refused", ())]
    named = re.compile(r"config\.pbtxt:\d+: (\w+: |expected the name of a field)")
    assert [line for line in refusals if not named.match(line)] == []
    assert len([each for each in EXPECTED.values() if "refused" not in each]) >= 20


@pytest.mark.parametrize("name", sorted(set(NAMES) - MALFORMED))
def test_the_files_are_of_tritons_own_message(name: str) -> None:
    pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    text_format.Parse((CONFIGS / f"{name}.pbtxt").read_text(), pb.ModelConfig())


CONFIG = """\
backend: "onnxruntime"
max_batch_size: 3
instance_group [ { count: 2 kind: KIND_CPU } ]
version_policy { latest { num_versions: 2 } }
dynamic_batching { max_queue_delay_microseconds: 1500 }
optimization { cuda { graphs: true } }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x, y = value("x", "FP32", "batch", 4), value("y", "FP32", "batch", 4)
    for version in ("1", "2", "3"):
        folder = tmp_path / "models" / "net" / version
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(graph_bytes([node("Neg", ["x"], ["y"])], [x], [y]))
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    return tmp_path


def test_a_repository_of_tritons_is_served_as_it_stands(folders: Folders, repository: Path) -> None:
    settings = ServerSettings()
    found = find_models(settings, repository).folders
    assert [(each.name, each.version) for each in served(found, settings)] == [
        ("net", "2"),
        ("net", "3"),
    ]
    own = settings_for(found[0], settings)
    assert (own.max_batch_size, own.instances, own.device) == (3, 2, "cpu")
    assert (own.policy, own.max_delay_ms) == ("delay", 1.5)
    definition = load_model_definition("net", "3", found[-1].folder)
    found_y = answers(folders.load(definition, max_batch_size=3), x=floats())["y"]
    np.testing.assert_array_equal(found_y, -floats())
    note = "note: config.pbtxt:6: optimization.cuda has no meaning here: it tunes another server"
    assert note in folders.progress


def test_the_configuration_says_otherwise_than_the_file(repository: Path) -> None:
    settings = ServerSettings.model_validate(
        {"defaults": {"instances": 4}, "models": {"net": {"max_batch_size": 16}}}
    )
    own = settings_for(find_models(settings, repository).folders[0], settings)
    assert (own.max_batch_size, own.instances) == (16, 2)


def test_a_version_of_its_own_model_yaml_is_read_from_that(repository: Path) -> None:
    folder = repository / "models" / "net" / "2"
    (folder / "model.yaml").write_text("format: onnx\nfile: model.onnx\n")
    settings = ServerSettings()
    found = find_models(settings, repository).folders
    assert settings_for(found[1], settings).max_batch_size == settings.defaults.max_batch_size
    assert load_model_definition("net", "2", folder).notes == ()


def test_a_change_of_the_file_changes_the_source_of_each_version(repository: Path) -> None:
    settings = ServerSettings()
    folder = find_models(settings, repository).folders[0]
    before = source_of(folder, settings, {})
    (repository / "models" / "net" / "config.pbtxt").write_text(CONFIG.replace("count: 2", ""))
    assert source_of(folder, settings, {}, before) != before


def test_a_file_that_is_refused_says_so_at_the_load_and_stops_no_other_model(
    repository: Path,
) -> None:
    (repository / "models" / "net" / "config.pbtxt").write_text("backend: 'dali'\n")
    settings = ServerSettings()
    found = served(find_models(settings, repository).folders, settings)
    with pytest.raises(ConfigError, match=r"^config\.pbtxt:1: backend: expected one of .*'dali'"):
        load_model_definition("net", "3", found[0].folder)


def test_text_escapes_comments_and_lists_are_read_with_their_lines() -> None:
    text = 'a: "x\\n\\"\\x41\\101"  # note\nb [\n  1,\n  -2\n]\nc { d: ON } c: < >\n'
    fields = [(each.name, each.line) for each in parse(text, "f").fields]
    assert fields == [("a", 1), ("b", 3), ("b", 4), ("c", 6), ("c", 6)]
    assert parse(text, "f").fields[0].value == 'x\n"AA'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"gr\303\266\xc3\x9fe", "gr\u00f6\u00dfe"),  # as protobuf's own printers write it
        (r"\u00fc\U0001F600", "\u00fc\U0001f600"),
        (r"\xff\ud800\U00110000\u1", "\ufffd\ufffd\ufffdu1"),
    ],
)
def test_escapes_are_bytes_of_utf_8_or_characters(text: str, wanted: str) -> None:
    assert parse(f'a: "{text}"', "f").fields[0].value == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb {\n", "f: expected a field, or }; got the end of the file"),
        ("a: 1\n}", "f:2: expected the name of a field; got }"),
        ("a 1", "f:1: expected `a:` and a value, or a { … }; got 1"),
        ("\n\na: \x00", "f:3: expected a field; got"),
        ('a: "x\n"', "f:1: expected a field; got"),
        ("a {" * (MAX_DEPTH + 2), "expected at most 32 messages within each other; got more"),
    ],
)
def test_what_is_no_text_format_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse(text, "f")


@given(st.text(alphabet='ab:{}[]<>",#\n 01-\\', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed: Any = parse(text, "f")
    except ConfigError:
        return
    assert isinstance(parsed.fields, list)


ODD = {
    "a delay of 400 digits": "dynamic_batching { max_queue_delay_microseconds: %s }" % ("9" * 400),
    "threads of 5000 digits": 'parameters { key: "intra_op_thread_count" value '
    '{ string_value: "%s" } }' % ("9" * 5000),
    "a file with a zero byte": r'default_model_filename: "a\000b"',
    "a file with a long name": 'default_model_filename: "%s"' % ("a" * 5000),
    "a file with a long path": 'default_model_filename: "%s"' % ("a/" * 3000),
    "a file above": 'default_model_filename: "a/../../b"',
    "labels with a zero byte": 'output { name: "z" label_filename: "a\\000b" }',
    "labels above": 'output { name: "z" label_filename: "../m2/labels.txt" }',
    "labels through a link": 'output { name: "z" label_filename: "link" }',
    "labels without an end": 'output { name: "z" label_filename: "large.txt" }',
    "a level that is none": "dynamic_batching { priority_levels: 3 default_priority_level: 9 }",
    "a size above the largest": "max_batch_size: 8\ndynamic_batching "
    "{ max_queue_delay_microseconds: 1 preferred_batch_size: 100 }",
    "more faults than anybody reads": "\n".join(f"field_{number}: 1" for number in range(20_000)),
    "sizes without an end": "dynamic_batching { preferred_batch_size: [ %s -1 ] }"
    % ("1 " * 99_999),
}


@pytest.mark.parametrize("odd", list(ODD.values()), ids=list(ODD))
def test_what_is_odd_is_refused_by_field_and_line(odd: str, tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (version.parent / "link").symlink_to("/etc/passwd")
    with (version.parent / "large.txt").open("wb") as file:
        file.truncate(MAX_LABELS_BYTES + 1)
    config = version.parent / "config.pbtxt"
    config.write_text(f'backend: "onnxruntime"\n{odd}\n')
    with pytest.raises(ConfigError, match=r"^config\.pbtxt:\d+: \w+: expected ") as caught:
        read_config(config, "m", version)
    assert len(str(caught.value)) < 100_000
    assert settings_of(version, "m") == {}


def test_settings_are_worked_out_once_for_each_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    config = version.parent / "config.pbtxt"
    config.write_text('backend: "onnxruntime"\nmax_batch_size: 8')
    settings_of(version, "m").clear()
    with monkeypatch.context() as patched:
        patched.setattr(model_config, "parse", lambda *arguments: pytest.fail("parsed again"))
        assert settings_of(version, "m")["max_batch_size"] == 8
    config.write_text('backend: "onnxruntime"\nmax_batch_size: 4')
    assert settings_of(version, "m")["max_batch_size"] == 4


def test_a_reshape_is_a_view_for_clients_alone_and_in_batches(
    folders: Folders, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x, y = value("x", "FP32", "n", 2, 2), value("y", "FP32", "n", 2, 2, 1)
    axes = [helper_axes()]
    folder = folders.base / "net" / "1"
    folder.mkdir(parents=True)
    nodes = [node("Neg", ["x"], ["z"]), node("Unsqueeze", ["z", "axes"], ["y"])]
    (folder / "model.onnx").write_bytes(graph_bytes(nodes, [x], [y], axes))
    (folder.parent / "config.pbtxt").write_text(RESHAPED)
    checked = folders.load(load_model_definition("net", "1", folder))
    found = answers(checked, x=floats())["y"]
    np.testing.assert_array_equal(found, -floats())
    np.testing.assert_array_equal(answers(checked, x=floats()[:1])["y"], -floats()[:1])


RESHAPED = """\
platform: "onnxruntime_onnx"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 2 ] } }
output { name: "y" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 2, 1 ] } }
"""


def helper_axes() -> Any:
    from onnx import helper

    return helper.make_tensor("axes", 7, [1], [3])
