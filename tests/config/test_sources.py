"""Where values come from, at the corners.

Names in capitals, booleans for sizes, digits that are none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.settings import load_settings
from batcher.errors import ConfigError


def test_a_variable_reaches_a_model_in_capitals_that_the_file_names(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models:\n  BERT: {max_batch_size: 8}\n")
    settings = load_settings(
        tmp_path / "config.yaml", {"BATCHER_MODELS__BERT__MAX_BATCH_SIZE": "4"}
    )
    assert settings.for_model("BERT").max_batch_size == 4
    assert list(settings.models) == ["BERT"]


def test_a_boolean_is_no_number_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("max_body_bytes: true\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:1: max_body_bytes: expected .*; got True"):
        load_settings(tmp_path / "config.yaml", {})


@pytest.mark.parametrize("value", ["0x_", "!!timestamp abc", "!!bool abc", "[" * 3000])
def test_a_variable_that_is_no_value_is_an_error_of_ours(value: str) -> None:
    with pytest.raises(ConfigError, match="BATCHER_PORT"):
        load_settings(None, {"BATCHER_PORT": value})
