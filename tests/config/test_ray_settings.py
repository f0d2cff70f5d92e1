"""What an instance on Ray may take, and errors that say what was expected."""

from __future__ import annotations

import pytest

from batcher.config.ray_settings import RaySettings
from batcher.errors import ConfigError
from tests.config.conftest import Load


def test_a_model_says_what_it_takes_of_its_node(load: Load) -> None:
    text = """
defaults: {worker: ray, ray: {address: "10.0.0.1:6379"}}
models: {big: {ray: {num_cpus: 2, num_gpus: 0.5, resources: {a100: 1}}}}
"""
    settings = load(text)
    assert settings.for_model("small").on_ray == RaySettings(address="10.0.0.1:6379")
    big = settings.for_model("big").on_ray
    assert str(big) == "2 CPU, 0.5 GPU, 1 a100"
    assert big.threads == 2
    assert RaySettings(num_cpus=0.5).threads == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{address: ray://10.0.0.1:10001}", "address: expected auto, or address and port"),
        ("{address: local}", "address: expected auto, or address and port"),
        ("{num_gpus: 1.5}", r"num_gpus: expected a whole number, or a part of one, such as 0\.5"),
        ("{num_cpus: -1}", "num_cpus: expected "),
        ("{resources: {GPU: 1}}", "resources: expected .* without GPU"),
        ("{gpus: 1}", "gpus"),
    ],
)
def test_what_ray_would_refuse_is_refused_at_once(load: Load, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(f"defaults: {{ray: {value}}}")
