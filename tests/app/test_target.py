"""What is declared on the command line."""

from __future__ import annotations

import pytest

from batcher.app.target import Said, declared, target_flags
from batcher.errors import ConfigError


def test_a_name_that_is_declared_twice_is_an_error_with_both() -> None:
    assert declared(["x=FP32[1]", "y=INT64"], "--input") == {"x": "FP32[1]", "y": "INT64"}
    with pytest.raises(ConfigError, match=r"--input: .* got x twice, FP32\[1\] and FP32\[2\]"):
        declared(["x=FP32[1]", "x=FP32[2]"], "--input")


def test_what_is_in_a_store_is_served_by_its_address() -> None:
    onnx, code = "S3://b/models/net.onnx", "gs://b/model.py:Net"
    alone, said = (onnx, None), (onnx, "s3://b/models/net.onnx")
    assert target_flags(onnx, Said(), True) == {
        ("models", "net", "path"): said,
        ("model_repository",): alone,
    }
    assert target_flags(onnx, Said(name="m", inputs=["x=FP32[4]"]), False) == {
        ("models", "m", "path"): said,
        ("models", "m", "inputs"): (onnx, {"x": "FP32[4]"}),
    }
    assert target_flags(code, Said(), False) == {("models", "model", "path"): (code, code)}
    repository = "az://c/models"
    assert target_flags(repository, Said(), True) == {
        ("model_repository",): (repository, repository)
    }
    assert target_flags(repository, Said(name="m"), False) == {
        ("models", "m", "path"): (repository, repository)
    }


@pytest.mark.parametrize(
    ("address", "said", "words"),
    [
        ("ftp://h/net.onnx", Said(), "TARGET: expected a folder, or an address that begins with"),
        ("s3://me:hidden@b/net.onnx", Said(), "TARGET: expected an address without a password"),
        ("https://h/net.onnx?key=hidden", Said(), "TARGET: expected an address without a password"),
        ("s3://b/net.h5", Said(), r"net\.h5: expected one of net\.onnx"),
        ("s3://b/models", Said(inputs=["x=FP32[4]"]), "got a folder, whose model.yaml says them"),
    ],
)
def test_an_address_that_cannot_be_served_is_an_error_without_secrets(
    address: str, said: Said, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        target_flags(address, said, True)
    assert "hidden" not in str(caught.value)
