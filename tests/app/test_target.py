"""What is declared on the command line."""

from __future__ import annotations

import pytest

from batcher.app.target import declared
from batcher.errors import ConfigError


def test_a_name_that_is_declared_twice_is_an_error_with_both() -> None:
    assert declared(["x=FP32[1]", "y=INT64"], "--input") == {"x": "FP32[1]", "y": "INT64"}
    with pytest.raises(ConfigError, match=r"--input: .* got x twice, FP32\[1\] and FP32\[2\]"):
        declared(["x=FP32[1]", "x=FP32[2]"], "--input")
