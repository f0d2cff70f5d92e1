"""What an instance on Ray may take, and errors that say what was expected."""

from __future__ import annotations

import pytest

from batcher.config.autoscale import AutoscaleSettings
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


def test_instances_follow_the_load_between_two_numbers(load: Load) -> None:
    settings = load("defaults: {worker: ray, autoscale: {max: 4}}").for_model("m")
    assert settings.autoscale == AutoscaleSettings(min=1, max=4, cool_down_s=300)
    assert settings.most_instances == 4
    assert load("defaults: {instances: 3}").for_model("m").most_instances == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("autoscale: {max: 4}", "autoscale: expected none without `worker: ray`; got it with"),
        ("worker: ray, autoscale: {min: 3, max: 2}", r"expected a min of at most its max \(2\)"),
        (
            "worker: ray, instances: 2, autoscale: {max: 2}",
            "instances: expected none beside `autoscale`, whose min and max say it; got 2",
        ),
        ("worker: ray, autoscale: {min: 0, max: 2}", "autoscale.min: expected "),
        ("worker: ray, autoscale: {max: 257}", "autoscale.max: expected "),
        ("worker: ray, autoscale: {min: 1}", "autoscale.max is missing"),
        ("worker: ray, autoscale: 3", "autoscale: expected "),
    ],
)
def test_an_autoscale_that_cannot_be_is_refused(load: Load, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(f"models: {{m: {{{value}}}}}").for_model("m")


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
