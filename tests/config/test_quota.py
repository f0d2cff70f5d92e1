"""`quotas` in `config.yaml`: what it may hold, and that no message shows a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from batcher.app.cli import main
from batcher.config.settings import load_settings
from batcher.errors import ConfigError
from tests.config.conftest import Load


def test_a_burst_is_a_second_s_worth_unless_it_is_named(load: Load) -> None:
    quotas = load(
        'quotas: {a: {rows_per_s: 100, burst_rows: 7, name: web}, "*": {rows_per_s: 100}, c: '
        "{rows_per_s: 0.5}}"
    ).quotas
    assert list(quotas) == ["a", "*", "c"]
    assert [quota.burst for quota in quotas.values()] == [7, 100, 1]
    assert [quota.name for quota in quotas.values()] == ["web", None, None]


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        (
            "quotas:\n  SECRET: {rows_per_s: 0}",
            2,
            "quotas.<key>.rows_per_s: expected greater than 0; got 0",
        ),
        (
            "quotas:\n  SECRET: {rows_per_s: -1.5}",
            2,
            "quotas.<key>.rows_per_s: expected greater than 0; got -1.5",
        ),
        (
            "quotas:\n  SECRET: {rows_per_s: .inf}",
            2,
            "quotas.<key>.rows_per_s: expected .*; got inf",
        ),
        (
            "quotas:\n  SECRET: {rows_per_s: true}",
            2,
            "quotas.<key>.rows_per_s: expected a valid number; got True",
        ),
        (
            "quotas:\n  SECRET:\n    rows_per_s: 1\n    burst_rows: 0",
            4,
            "quotas.<key>.burst_rows: expected .* 1; got 0",
        ),
        (
            "quotas:\n  SECRET: {rows_per_s: 1, name: ''}",
            2,
            "quotas.<key>.name: expected .*; got ''",
        ),
        ("quotas:\n  SECRET: {}", 2, "quotas.<key>.rows_per_s is missing"),
        (
            "quotas:\n  SECRET: {rows_per_s: 1, burst: 2}",
            2,
            "unknown setting quotas.<key>.burst; did you mean burst_rows[?]",
        ),
        (
            "quotas:\n  SECRET: {rows_per_s: 1}\n  SECRET: {rows_per_s: 2}",
            3,
            "quotas.<key> is set twice",
        ),
        ("quotas:\n  SECRET: 5", 2, "quotas.<key>: expected .*; got int"),
        ("quotas: [SECRET]", 1, "quotas: expected .*; got list"),
        ("quotas: SECRET", 1, "quotas: expected .*; got str"),
        (
            "quotas:\n  SECRET KEY: {rows_per_s: 1}",
            2,
            "quotas.<key>: expected a key of visible ASCII .*; got str",
        ),
        (
            "quotas:\n  '': {rows_per_s: 1}",
            2,
            "quotas.<key>: expected a key of visible ASCII .*; got str",
        ),
        (
            "quotas:\n  5309: {rows_per_s: 1}",
            1,
            "quotas.<key>: expected .* string; got int; quote it .*",
        ),
    ],
)
def test_a_wrong_quota_is_refused_by_line_and_without_its_key(
    load: Load, text: str, line: int, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^config\.yaml:{line}: {complaint}$") as refusal:
        load(text + "\n")
    assert "SECRET" not in str(refusal.value)
    assert "5309" not in str(refusal.value)


def test_a_variable_may_hold_all_quotas_or_change_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("quotas: {SECRET: {rows_per_s: 1}}\n")
    whole = load_settings(None, {"BATCHER_QUOTAS": "{SECRET: {rows_per_s: 3}}"})
    one = load_settings(tmp_path / "config.yaml", {"BATCHER_QUOTAS__SECRET__ROWS_PER_S": "4"})
    assert [settings.quotas["SECRET"].rows_per_s for settings in (whole, one)] == [3, 4]
    with pytest.raises(
        ConfigError, match=r"^environment variable BATCHER_QUOTAS…: quotas.<key>.rows_per_s: "
    ) as refusal:
        load_settings(None, {"BATCHER_QUOTAS__SECRET__ROWS_PER_S": "0"})
    assert "secret" not in str(refusal.value).lower()


def test_a_flag_s_key_is_not_told() -> None:
    result = CliRunner().invoke(main, ["check", "--set", "quotas.SECRET.rows_per_s=0"])
    assert result.exit_code == 1
    assert (
        "--set quotas.<key>.rows_per_s: quotas.<key>.rows_per_s: expected greater than 0; got 0"
        in result.output
    )
    assert "SECRET" not in result.output


def test_settings_that_are_printed_show_no_key(load: Load) -> None:
    assert "SECRET" not in repr(load("quotas: {SECRET: {rows_per_s: 1}}"))
